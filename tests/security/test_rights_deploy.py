"""The configuration in deploy/nats works with the keys that the command creates."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from ems_worker.core.access import rights
from ems_worker.local import keys, ports
from tests.support import roles, servers

DEPLOY = servers.ROOT / "deploy"


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[roles.SecuredBroker]:
    """A broker with the configuration of deploy/nats, except for its directory, port and store."""
    port = ports.free_port()
    url = f"tls://{ports.LOOPBACK}:{port}"
    first = _make(tmp_path / "keys", url)
    assert first.returncode == 0, first.stderr
    seed = (tmp_path / "keys" / "admin" / "user.nk").read_bytes()
    assert _make(tmp_path / "keys", url).returncode == 0
    assert (tmp_path / "keys" / "admin" / "user.nk").read_bytes() == seed
    text = (DEPLOY / "nats" / "nats-server.conf").read_text().replace("/etc/nats", str(tmp_path))
    own = re.sub(r"^listen:.*$|^jetstream \{[^}]*\}$", "", text, flags=re.M)
    (tmp_path / "rights.conf").write_text((DEPLOY / "nats" / "rights.conf").read_text())
    broker = roles.SecuredBroker(keys.Keys(tmp_path / "keys", url), servers.NatsServer(tmp_path, port=port, more=own))
    await broker.start()
    yield broker
    await broker.server.stop()


def _make(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Runs the command that creates the keys."""
    command = [sys.executable, "-m", "ems_worker.local.keys", str(directory), "--url", url, "--host", "localhost"]
    return subprocess.run(command, capture_output=True, text=True, cwd=servers.ROOT)


async def test_each_user_connects_with_its_key_and_has_its_rights(broker: roles.SecuredBroker) -> None:
    """Every role can connect over TLS, and its rights to publish and to subscribe are those of the role."""
    for role in roles.ROLES:
        async with broker.user(role) as user:
            assert await user.publishes("ems.experiment.submit") is (role in ("publisher", "operator"))
            assert await user.subscribes(f"_INBOX_{role}.>")


def test_secrets_are_private_and_separate_for_each_role(tmp_path: Path) -> None:
    """All files and directories are private, and the directory of a role has only the files of that role."""
    made = keys.make(tmp_path / "keys", "tls://nats.example:4222")
    for path in made.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    files = sorted(path.name for path in (made.directory / "worker").iterdir())
    assert files == ["ca.pem", "context.json", "user.nk"]
    assert len(set(made.public().values())) == len(rights.ROLES)


def test_the_deployment_sets_the_reply_prefixes_of_the_worker() -> None:
    """The worker sends replies to exactly those inboxes to which it may publish."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["worker"]["environment"]["EMS_REPLY_PREFIXES"] == ",".join(rights.REPLY_PREFIXES)


def test_an_invalid_url_is_a_usage_error(tmp_path: Path) -> None:
    """The command exits with 2 and a message that shows a valid URL, and creates nothing."""
    done = _make(tmp_path / "keys", "broker")
    assert (done.returncode, done.stderr) == (2, "error: 'broker' should look like tls://nats.example:4222\n")
    assert not (tmp_path / "keys").exists()
