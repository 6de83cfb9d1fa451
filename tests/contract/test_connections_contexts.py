"""Where NATS credentials come from (contexts of the nats command, variables, the file), and which are refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ems_worker import client, errors, nats_access, settings
from tests.support import commands, security

PASSWORD = "s3cret-word"


@dataclasses.dataclass(frozen=True)
class Home:
    """A home directory with contexts of the nats command."""

    path: Path

    @property
    def environ(self) -> dict[str, str]:
        return {"HOME": str(self.path)}

    def context(self, name: str, *, mode: int = 0o600, **content: Any) -> None:
        directory = self.path / ".config" / "nats" / "context"
        directory.mkdir(parents=True, exist_ok=True)
        security.private(directory / f"{name}.json", json.dumps({"description": name, **content}).encode(), mode)

    def select(self, name: str) -> None:
        (self.path / ".config" / "nats" / "context.txt").write_text(f"{name}\n")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def refused(flags: dict[str, object], environ: dict[str, str]) -> str:
    with pytest.raises(errors.SettingsError) as caught:
        settings.access(flags, environ)
    return str(caught.value)


def test_a_context_is_all_of_a_connection(home: Home) -> None:
    """Every key of ADR-21 for connecting is read, and the worker shows where each value comes from."""
    home.context(
        "prod",
        url="tls://a:4222,tls://b:4222",
        creds="~/user.creds",
        cert="/tls/c.pem",
        key="/tls/k.pem",
        ca="/tls/ca.pem",
        tls_first=True,
        inbox_prefix="_INBOX.me",
        color_scheme="green",
        token="",
    )
    access = settings.access({"context": "prod"}, home.environ)
    assert access == settings.Access(
        servers=("tls://a:4222", "tls://b:4222"),
        creds=home.path / "user.creds",
        cert=Path("/tls/c.pem"),
        key=Path("/tls/k.pem"),
        ca=Path("/tls/ca.pem"),
        tls_first=True,
        inbox_prefix="_INBOX.me",
    )
    loaded, origins = settings.load({}, {**home.environ, "EMS_CONTEXT": "prod"})
    assert loaded.access == access
    assert (origins["server"], origins["nats_creds"], origins["context"]) == (
        "context prod",
        "context prod",
        "EMS_CONTEXT",
    )


def test_a_named_context_replaces_what_ranks_lower(home: Home) -> None:
    """Credentials for a server are never sent to another; settings of at least the same rank override the context."""
    home.context("prod", url="nats://prod:4222", user="u", password=PASSWORD)
    below = {**home.environ, "NATS_URL": "nats://n:1", "NATS_CREDS": "/n.creds", "EMS_NATS_CA": "/ca.pem"}
    access = settings.access({"context": "prod"}, below)
    assert (access.servers, access.user, access.password) == (("nats://prod:4222",), "u", PASSWORD)
    assert (access.creds, access.ca) == (None, None)
    access = settings.access({}, {**below, "EMS_CONTEXT": "prod", "EMS_NATS_TOKEN": "t"})
    assert (access.user, access.token, access.ca) == (None, "t", Path("/ca.pem"))
    access = settings.access({"context": "prod", "server": "nats://other:1"}, home.environ)
    assert (access.servers, access.user) == (("nats://other:1",), "u")


def test_the_selected_context_is_the_default(home: Home) -> None:
    """It counts for commands only: the worker doesn't depend on the context that a user happens to select."""
    home.context("dev", url="nats://dev:4222")
    home.select("dev")
    assert settings.access({}, home.environ).servers == ("nats://dev:4222",)
    for more in ({"NATS_URL": "nats://n:1"}, {"EMS_SERVER": "nats://n:1"}):
        assert settings.access({}, {**home.environ, **more}).servers == ("nats://n:1",)
    assert settings.load({}, home.environ)[0].server == (settings.DEFAULT_SERVER,)


def test_the_variables_of_other_nats_programs_are_read(home: Home) -> None:
    """The variables of this program rank above them."""
    environ = {
        **home.environ,
        "NATS_USER": "u",
        "NATS_PASSWORD": PASSWORD,
        "NATS_CA": "/ca.pem",
        "NATS_URL": "tls://n:1",
    }
    assert settings.load({}, environ)[0].access == settings.access({}, environ)
    assert settings.access({}, environ).user == "u"
    assert settings.access({}, {**environ, "EMS_NATS_CREDS": "/x.creds"}).user is None


def test_the_error_says_why_a_context_cannot_be_used(home: Home) -> None:
    """A context can be missing, unreadable or unsupported, or have a secret that other users can read."""
    home.context("open", mode=0o644, url="nats://a", password=PASSWORD, user="u")
    home.context("nsc", url="nats://a", nsc="nsc://operator/account/user")
    (home.path / ".config" / "nats" / "context" / "torn.json").write_text("{")
    message = refused({"context": "none"}, home.environ)
    assert "no NATS context 'none'" in message
    assert "nsc, open, torn" in message
    assert "chmod 600" in refused({"context": "open"}, home.environ)
    assert "nsc, which is not supported" in refused({"context": "nsc"}, home.environ)
    assert "can't be read" in refused({"context": "torn"}, home.environ)
    assert "no NATS context" in refused({"context": "../prod"}, home.environ)


@pytest.mark.parametrize(
    ("access", "message"),
    [
        (settings.Access(("nats://127.0.0.1",), user="u"), "a user needs a password"),
        (settings.Access(("nats://127.0.0.1",), token="t", creds=Path("c")), "a token and a creds file are given"),
        (settings.Access(("nats://127.0.0.1",), cert=Path("c")), "a certificate needs its key"),
        (settings.Access(("nats://127.0.0.1", "nats://nats.example:4222")), "nats.example:4222 .*without encryption"),
        (settings.Access(("nats://u:s3cret-word@10.0.0.1",)), "10.0.0.1 .*EMS_NATS_PLAINTEXT"),
    ],
)
def test_contradicting_or_unencrypted_settings_are_refused(access: settings.Access, message: str) -> None:
    """Worker and client refuse them before they send anything, and the error has no secrets."""
    with pytest.raises(errors.SettingsError, match=message) as caught:
        nats_access.options(access)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "server", ["nats://127.0.0.1:4222", "localhost:4222", "nats://[::1]:4222", "tls://nats.example"]
)
def test_loopback_and_tls_need_no_permission(server: str) -> None:
    """Plaintext to any other server needs the permission, and nothing else."""
    assert nats_access.options(settings.Access((server,)))["servers"] == [server]
    assert nats_access.options(settings.Access(("nats://nats.example",), plaintext=True))["servers"]


async def test_the_client_refuses_plaintext_too() -> None:
    """A program that gives only an address doesn't connect without encryption either."""
    with pytest.raises(errors.SettingsError, match="without encryption"):
        async with client.EmsClient("nats://nats.example:4222"):
            pass


def test_files_of_secrets_must_be_private_and_valid(tmp_path: Path) -> None:
    """A secret that other users can read is refused with the remedy, and so is a file with other content."""
    made = security.certificates(tmp_path)
    local = ("nats://127.0.0.1",)
    opened = security.private(tmp_path / "open.creds", b"x", 0o640)
    seed = security.private(tmp_path / "account.nk", b"SAabc")
    broken = security.private(tmp_path / "broken.pem", b"x")
    for access, message in (
        (settings.Access(local, creds=opened), "chmod 600"),
        (settings.Access(local, creds=broken), "not a NATS credentials file"),
        (settings.Access(local, creds=tmp_path / "absent"), "absent can't be read"),
        (settings.Access(local, nkey=seed), "not the seed of a user nkey"),
        (settings.Access(local, ca=broken), "can't be used"),
        (settings.Access(local, cert=made.client_cert, key=made.other_key), "can't be used"),
    ):
        with pytest.raises(errors.SettingsError, match=message):
            nats_access.options(access)


@pytest.mark.long
def test_the_worker_shows_no_secret(home: Home) -> None:
    """Secrets are neither in the shown configuration nor in errors, and have no flag, which other users could see."""
    home.context("prod", url=f"nats://u:{PASSWORD}@127.0.0.1:4222")
    env = commands.environment(HOME=str(home.path), EMS_NATS_TOKEN=PASSWORD, EMS_CONTEXT="prod")
    for arguments in (("config",), ("config", "--json")):
        shown = commands.run("ems-worker", *arguments, env=env)
        assert shown.code == 0, shown.err
        assert PASSWORD not in shown.out + shown.err
        assert "***" in shown.out
    assert "--nats-token" not in commands.run("ems-worker", "run", "--help", env=env).out
    with pytest.raises(errors.SettingsError) as caught:
        settings.load({}, {"EMS_NATS_USER": "u", "EMS_RPC_WINDOW": "x", "EMS_NATS_PASSWORD": PASSWORD})
    assert PASSWORD not in str(caught.value)
