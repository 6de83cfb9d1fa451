"""The other programs of a user find that user's running platform of `ems up`, and no other program does."""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ems_worker import errors, settings
from ems_worker.settings import private, running
from tests.support import another_user

URL = "nats://127.0.0.1:14222"
PASSWORD = "a-secret-word"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """The environment variables of a user with a runtime directory and a home."""
    (tmp_path / "run").mkdir(0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path / "home")}


@pytest.fixture
def platform(environ: dict[str, str]) -> Iterator[running.Platform]:
    """A running platform."""
    announced = running.Platform(running.path_for(14222, environ), URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(announced):
        yield announced


@pytest.mark.parametrize("server", [URL, "127.0.0.1:14222", "nats://localhost:14222"])
def test_the_address_of_a_platform_leads_to_its_credentials(
    environ: dict[str, str], platform: running.Platform, server: str
) -> None:
    """Commands and the worker take the credentials of the platform, report their origin and mask the password."""
    access = settings.access({"server": server}, environ)
    assert (access.servers, access.user, access.password) == ((URL,), "ems", PASSWORD)
    assert PASSWORD not in repr(access)
    loaded, origins = settings.load({"server": server}, environ)
    assert loaded.access.password == PASSWORD
    assert loaded.orchestrator == "unix:/run/x.sock"
    from_it = {name for name, origin in origins.items() if origin == f"running platform {platform.path}"}
    assert from_it == {"server", "nats_user", "nats_password", "orchestrator", "orchestrator_token"}
    assert settings.shown(loaded.nats_password) == "***"


@pytest.mark.parametrize("server", [URL, "tls://127.0.0.1:14222", "tls://localhost:14222"])
def test_the_address_of_a_secured_platform_leads_to_its_nkey_and_ca(environ: dict[str, str], server: str) -> None:
    """A secured platform has no password: programs get its nkey, its CA and an inbox prefix, and must use TLS."""
    secured = running.Platform(
        running.path_for(14222, environ),
        "tls://127.0.0.1:14222",
        None,
        None,
        "unix:/run/x.sock",
        nkey="/run/user.nk",
        ca="/run/ca.pem",
        inbox_prefix="_INBOX_operator",
    )
    with running.announced(secured):
        access = settings.access({"server": server}, environ)
        loaded, origins = settings.load({"server": server}, environ)
        by_context = settings.access({"context": str(secured.path)}, {})
    for each in (access, loaded.access, by_context):
        assert (each.servers, each.user, each.password) == (("tls://127.0.0.1:14222",), None, None)
        assert (each.nkey, each.ca) == (Path("/run/user.nk"), Path("/run/ca.pem"))
        assert each.inbox_prefix == "_INBOX_operator"
        assert each.encrypted
    from_it = {name for name, origin in origins.items() if origin == f"running platform {secured.path}"}
    assert {"server", "nats_nkey", "nats_ca", "nats_inbox_prefix"} <= from_it


@pytest.mark.parametrize(
    "server",
    [
        "nats://127.0.0.1:14223",
        "nats://[::1]:14222",
        "nats://nats.example:14222",
        "tls://127.0.0.1:14222",
        "nats://u:p@127.0.0.1:14222",
        f"{URL},{URL}",
    ],
)
def test_no_other_server_gets_the_credentials(environ: dict[str, str], platform: running.Platform, server: str) -> None:
    """Another port or host, TLS to a plain platform, an address with a user, and several servers get none."""
    environ |= {"EMS_NATS_PLAINTEXT": "true"}
    access = settings.access({"server": server}, environ)
    assert (access.user, access.password) == (None, None)
    assert settings.load({"server": server}, environ)[0].nats_user is None


def test_explicit_settings_take_precedence_over_the_platform(
    environ: dict[str, str], platform: running.Platform, tmp_path: Path
) -> None:
    """Credentials from a variable or a context, and an explicit orchestrator, replace those of the platform."""
    for given in ({"EMS_NATS_TOKEN": "t"}, {"NATS_USER": "u", "NATS_PASSWORD": "p"}, {"NATS_CREDS": "c"}):
        assert settings.access({"server": URL}, environ | given).password != PASSWORD
        assert settings.load({"server": URL}, environ | given)[0].access.password != PASSWORD
    context = tmp_path / "mine.json"
    os.close(private.write(context, json.dumps({"url": URL, "user": "u", "password": "p"}).encode()))
    assert settings.access({"context": str(context)}, environ).user == "u"
    assert settings.load({"server": URL, "orchestrator": "127.0.0.1:1"}, environ)[0].orchestrator == "127.0.0.1:1"


def test_the_file_of_a_platform_is_a_context_of_the_nats_command(
    environ: dict[str, str], platform: running.Platform
) -> None:
    """Given as a context by its path, the file leads to the platform."""
    access = settings.access({"context": str(platform.path)}, {})
    assert (access.servers, access.user, access.password) == ((URL,), "ems", PASSWORD)


def test_a_file_without_a_lock_is_ignored(environ: dict[str, str], platform: running.Platform) -> None:
    """Files are private, and only a locked file counts: a platform that was killed leaves one without a lock."""
    assert stat.S_IMODE(platform.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(platform.path.parent.stat().st_mode) == 0o700
    left = platform.path.with_name("14223.json")
    left.write_bytes(platform.path.read_bytes())
    left.chmod(0o600)
    assert settings.access({"server": "nats://127.0.0.1:14223"}, environ).user is None
    assert settings.access({"server": URL}, environ).user == "ems"


def test_a_platform_that_has_ended_is_not_found(environ: dict[str, str]) -> None:
    """The file is deleted when the platform ends."""
    ended = running.Platform(running.path_for(14222, environ), URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(ended):
        assert settings.access({"server": URL}, environ).user == "ems"
    assert settings.access({"server": URL}, environ).user is None
    assert not ended.path.exists()


def test_a_file_or_directory_that_others_can_open_is_refused(
    environ: dict[str, str], platform: running.Platform
) -> None:
    """The error names the permissions and the chmod command that corrects them, as ssh does."""
    platform.path.chmod(0o644)
    with pytest.raises(errors.SettingsError, match=r"may be read by others \(mode 0644\): chmod 600"):
        settings.access({"server": URL}, environ)
    platform.path.chmod(0o600)
    platform.path.parent.chmod(0o755)
    with pytest.raises(errors.SettingsError, match=r"may be entered by others \(mode 0755\): chmod 700"):
        settings.load({"server": URL}, environ)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "nats://127.0.0.1:14222", "user": "u"}'])
def test_a_file_with_other_content_is_refused(
    environ: dict[str, str], platform: running.Platform, content: str
) -> None:
    """Content that no platform wrote is a settings error with the path and the remedy."""
    platform.path.write_text(content)
    with pytest.raises(errors.SettingsError, match="was not written by a platform: remove it"):
        settings.access({"server": URL}, environ)


def test_platforms_are_announced_in_the_best_directory_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is the runtime directory, else one below the home directory, else one per user below the temporary one."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "run").mkdir(0o700)
    home = {"HOME": str(tmp_path / "home")}
    assert running.directory(home | {"XDG_RUNTIME_DIR": str(tmp_path / "run")}) == tmp_path / "run" / "ems-worker"
    assert running.directory(home).is_relative_to(tmp_path / "home" / ".local" / "state" / "ems-worker")
    assert running.directory({}) == tmp_path / "tmp" / f"ems-worker-{os.geteuid()}"
    # The home directory of a service's user may not exist.
    assert running.directory({"HOME": "/proc/nowhere"}) == tmp_path / "tmp" / f"ems-worker-{os.geteuid()}"


def test_directories_of_another_user_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime directory of the user before `su` is skipped, and a foreign directory at our path in /tmp refused."""
    another_user.require_root()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = [tmp_path / "run", tmp_path / f"ems-worker-{os.geteuid()}"]
    for path in theirs:
        path.mkdir(0o700)
        os.chown(path, another_user.NOBODY, another_user.NOBODY)
    environ = {"XDG_RUNTIME_DIR": str(theirs[0])}
    with pytest.raises(errors.FileUnwritable, match="another user may have created it"):
        running.directory(environ)
    # Their files are ignored, and commands work all the same.
    planted = running.Platform(theirs[1] / "14222.json", URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(planted):
        assert settings.access({"server": URL}, environ).user is None
    assert running.directory(environ | {"HOME": str(tmp_path / "home")}).is_relative_to(tmp_path / "home")


def test_a_platform_is_found_by_its_directory(environ: dict[str, str], tmp_path: Path) -> None:
    """Whatever its port is; files that are none of a platform are passed over."""
    data_dir = tmp_path / "data"
    announced = running.Platform(
        running.path_for(14222, environ), URL, "ems", PASSWORD, "unix:/x", data_dir=str(data_dir), pid=os.getpid()
    )
    assert running.of_directory(data_dir, environ) is None
    with running.announced(announced):
        other = announced.path.with_name("1.json")
        other.write_text("{")
        other.chmod(0o666)
        assert running.of_directory(data_dir, environ) == announced
        assert running.of_directory(tmp_path, environ) is None
    assert list(running.platforms(environ)) == []


def test_a_platform_of_a_later_version_is_found(environ: dict[str, str], platform: running.Platform) -> None:
    """What this version doesn't know of it is passed over."""
    content = json.loads(platform.path.read_text()) | {"color": "blue"}
    platform.path.write_text(json.dumps(content))
    assert running.at(platform.path) == platform


def test_the_orchestrator_is_that_of_the_platform_unless_another_is_named(
    environ: dict[str, str], platform: running.Platform
) -> None:
    """A flag or a variable names another one, which then doesn't get the platform's token."""
    assert settings.channel({"server": URL}, environ).target == "unix:/run/x.sock"
    assert settings.channel({"server": "nats://127.0.0.1:4222"}, environ).target == "127.0.0.1:50051"
    named = settings.channel(
        {"server": URL}, {**environ, "EMS_ORCHESTRATOR": "other:1", "EMS_ORCHESTRATOR_TLS": "true"}
    )
    assert (named.target, named.encrypted, named.token) == ("other:1", True, None)
    assert settings.channel({"server": URL, "orchestrator": "flag:1"}, environ).target == "flag:1"


def test_the_orchestrator_of_a_platform_has_its_token(environ: dict[str, str]) -> None:
    """Also that of a secured one."""
    secured = running.Platform(
        running.path_for(14223, environ),
        "tls://127.0.0.1:14223",
        None,
        None,
        "127.0.0.1:5",
        orchestrator_token="/run/token",
        nkey="/run/user.nk",
        ca="/run/ca.pem",
    )
    with running.announced(secured):
        found = settings.channel({"server": "nats://127.0.0.1:14223"}, environ)
    assert (found.target, str(found.token)) == ("127.0.0.1:5", "/run/token")
