"""A platform of `ems up` is found by the other programs of its user, and by nobody and nothing else."""

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
    """The environment of a user."""
    (tmp_path / "run").mkdir(0o700)
    return {"XDG_RUNTIME_DIR": str(tmp_path / "run"), "HOME": str(tmp_path / "home")}


@pytest.fixture
def platform(environ: dict[str, str]) -> Iterator[running.Platform]:
    """One that runs."""
    one = running.Platform(running.path_for(14222, environ), URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(one):
        yield one


@pytest.mark.parametrize("server", [URL, "127.0.0.1:14222", "nats://localhost:14222"])
def test_its_address_leads_to_its_credentials(environ: dict[str, str], platform: running.Platform, server: str) -> None:
    """For the commands and for the worker, which says where they are from and shows no secret."""
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
def test_a_secured_one_leads_to_its_nkey_and_ca(environ: dict[str, str], server: str) -> None:
    """With the inbox prefix of its user; there is no password, and the address demands TLS."""
    one = running.Platform(
        running.path_for(14222, environ),
        "tls://127.0.0.1:14222",
        None,
        None,
        "unix:/run/x.sock",
        nkey="/run/user.nk",
        ca="/run/ca.pem",
        inbox_prefix="_INBOX_operator",
    )
    with running.announced(one):
        access = settings.access({"server": server}, environ)
        loaded, origins = settings.load({"server": server}, environ)
        by_context = settings.access({"context": str(one.path)}, {})
    for found in (access, loaded.access, by_context):
        assert (found.servers, found.user, found.password) == (("tls://127.0.0.1:14222",), None, None)
        assert (found.nkey, found.ca) == (Path("/run/user.nk"), Path("/run/ca.pem"))
        assert found.inbox_prefix == "_INBOX_operator"
        assert found.encrypted
    from_it = {name for name, origin in origins.items() if origin == f"running platform {one.path}"}
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
def test_no_other_server_gets_them(environ: dict[str, str], platform: running.Platform, server: str) -> None:
    """Another port or host, TLS, an address with a user, or several servers."""
    environ |= {"EMS_NATS_PLAINTEXT": "true"}
    access = settings.access({"server": server}, environ)
    assert (access.user, access.password) == (None, None)
    assert settings.load({"server": server}, environ)[0].nats_user is None


def test_what_the_user_chose_stands_before_them(
    environ: dict[str, str], platform: running.Platform, tmp_path: Path
) -> None:
    """Credentials of his own, by a variable or a context; an orchestrator of his own."""
    for given in ({"EMS_NATS_TOKEN": "t"}, {"NATS_USER": "u", "NATS_PASSWORD": "p"}, {"NATS_CREDS": "c"}):
        assert settings.access({"server": URL}, environ | given).password != PASSWORD
        assert settings.load({"server": URL}, environ | given)[0].access.password != PASSWORD
    context = tmp_path / "mine.json"
    os.close(private.write(context, json.dumps({"url": URL, "user": "u", "password": "p"}).encode()))
    assert settings.access({"context": str(context)}, environ).user == "u"
    assert settings.load({"server": URL, "orchestrator": "127.0.0.1:1"}, environ)[0].orchestrator == "127.0.0.1:1"


def test_its_file_is_a_context_of_the_nats_command(environ: dict[str, str], platform: running.Platform) -> None:
    """By its path, for us as for that command."""
    access = settings.access({"context": str(platform.path)}, {})
    assert (access.servers, access.user, access.password) == ((URL,), "ems", PASSWORD)


def test_it_is_announced_while_it_runs(environ: dict[str, str], platform: running.Platform) -> None:
    """In a file of 0600 in a directory of 0700, whose lock tells it from what a killed platform left."""
    assert stat.S_IMODE(platform.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(platform.path.parent.stat().st_mode) == 0o700
    left = platform.path.with_name("14223.json")
    left.write_bytes(platform.path.read_bytes())
    left.chmod(0o600)
    assert settings.access({"server": "nats://127.0.0.1:14223"}, environ).user is None
    assert settings.access({"server": URL}, environ).user == "ems"


def test_after_its_end_nothing_is_found(environ: dict[str, str]) -> None:
    """Its file is gone."""
    one = running.Platform(running.path_for(14222, environ), URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(one):
        assert settings.access({"server": URL}, environ).user == "ems"
    assert settings.access({"server": URL}, environ).user is None
    assert not one.path.exists()


def test_a_file_that_others_could_read_or_write_is_refused(environ: dict[str, str], platform: running.Platform) -> None:
    """With the remedy, as ssh does."""
    platform.path.chmod(0o644)
    with pytest.raises(errors.SettingsError, match=r"may be read by others \(mode 0644\): chmod 600"):
        settings.access({"server": URL}, environ)
    platform.path.chmod(0o600)
    platform.path.parent.chmod(0o755)
    with pytest.raises(errors.SettingsError, match=r"may be entered by others \(mode 0755\): chmod 700"):
        settings.load({"server": URL}, environ)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"url": "nats://127.0.0.1:14222", "user": "u"}'])
def test_a_file_that_is_none_is_refused(environ: dict[str, str], platform: running.Platform, content: str) -> None:
    """With its name, and no traceback."""
    platform.path.write_text(content)
    with pytest.raises(errors.SettingsError, match="is not what a platform writes there: remove it"):
        settings.access({"server": URL}, environ)


def test_where_it_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the runtime directory, else below the home directory, else in the temporary directory by user."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "run").mkdir(0o700)
    home = {"HOME": str(tmp_path / "home")}
    assert running.directory(home | {"XDG_RUNTIME_DIR": str(tmp_path / "run")}) == tmp_path / "run" / "ems-worker"
    assert running.directory(home).is_relative_to(tmp_path / "home" / ".local" / "state" / "ems-worker")
    assert running.directory({}) == tmp_path / "tmp" / f"ems-worker-{os.geteuid()}"
    # A home that can't be written, as of a service's user.
    assert running.directory({"HOME": "/proc/nowhere"}) == tmp_path / "tmp" / f"ems-worker-{os.geteuid()}"


def test_another_users_directories_are_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The runtime directory of the user before `su` is passed over; what is in our place in /tmp is refused."""
    another_user.needs_root()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    theirs = [tmp_path / "run", tmp_path / f"ems-worker-{os.geteuid()}"]
    for path in theirs:
        path.mkdir(0o700)
        os.chown(path, another_user.NOBODY, another_user.NOBODY)
    environ = {"XDG_RUNTIME_DIR": str(theirs[0])}
    with pytest.raises(errors.FileUnwritable, match="another may have made it"):
        running.directory(environ)
    # They can't keep commands from working, nor have them take what they put there.
    one = running.Platform(theirs[1] / "14222.json", URL, "ems", PASSWORD, "unix:/run/x.sock")
    with running.announced(one):
        assert settings.access({"server": URL}, environ).user is None
    assert running.directory(environ | {"HOME": str(tmp_path / "home")}).is_relative_to(tmp_path / "home")
