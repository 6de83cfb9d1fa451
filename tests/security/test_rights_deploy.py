"""deploy/nats with the keys that the command makes, as an operator would put them together."""

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from ems_worker.core import rights
from ems_worker.local import keys, ports
from tests.support import roles, servers

DEPLOY = servers.ROOT / "deploy"


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[roles.SecuredBroker]:
    """A broker whose configuration is that of deploy/nats, but for its place, its port and its store."""
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
    one = roles.SecuredBroker(keys.Keys(tmp_path / "keys", url), servers.NatsServer(tmp_path, port=port, more=own))
    await one.start()
    yield one
    await one.server.stop()


def _make(directory: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ems_worker.local.keys", str(directory), "--url", url, "--host", "localhost"]
    return subprocess.run(command, capture_output=True, text=True, cwd=servers.ROOT)


async def test_each_user_is_let_in_with_its_rights(site: roles.SecuredBroker) -> None:
    """By its own key, over TLS."""
    for role in roles.ROLES:
        async with site.user(role) as user:
            assert await user.publishes("ems.experiment.submit") is (role in ("publisher", "operator"))
            assert await user.subscribes(f"_INBOX_{role}.>")


def test_the_secrets_are_their_owners_alone(tmp_path: Path) -> None:
    """Directories 0700, files 0600; each role's has nothing of another's."""
    made = keys.make(tmp_path / "keys", "tls://nats.example:4222")
    for path in made.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert sorted(one.name for one in (made.directory / "worker").iterdir()) == ["ca.pem", "context.json", "user.nk"]
    assert len(set(made.public().values())) == len(rights.ROLES)


def test_the_deployment_tells_the_worker_whom_it_answers() -> None:
    """The inboxes to which it has the right to publish."""
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert services["worker"]["environment"]["EMS_REPLY_PREFIXES"] == ",".join(rights.REPLY_PREFIXES)


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    """Exit code 2, and no traceback; nothing is made."""
    done = _make(tmp_path / "keys", "broker")
    assert (done.returncode, done.stderr) == (2, "error: 'broker' should look like tls://nats.example:4222\n")
    assert not (tmp_path / "keys").exists()
