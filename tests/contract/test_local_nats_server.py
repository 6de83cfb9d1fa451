"""The platform's nats-server, as its clients see it."""

from pathlib import Path

import nats
import pytest

from ems_worker.local import nats_server, process
from tests.support import servers


@pytest.mark.parametrize("crash", [False, True])
async def test_messages_and_port_survive_a_restart(tmp_path: Path, crash: bool) -> None:
    """A client finds the restarted server where it was, with what was stored before."""
    async with servers.NatsServer(tmp_path) as server:
        url = server.url
        client = await nats.connect(url)
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", b"kept")
        await client.close()

        await server.restart(crash=crash)

        assert server.url == url
        client = await nats.connect(url)
        assert (await client.jetstream().get_last_msg("S", "s")).data == b"kept"
        await client.close()
    assert not server.running


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """A given port that somebody else listens on is refused with its number; the other server stays untouched."""
    async with servers.NatsServer(tmp_path / "first") as first:
        second = nats_server.NatsServer(tmp_path / "second", port=first.port)
        with pytest.raises(process.PlatformFailed, match=f"port {first.port} is taken"):
            await second.start()
        assert first.running


async def test_a_server_without_path_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing on PATH the executable of this Python's environment is found."""
    monkeypatch.setenv("PATH", "")
    assert nats_server.find_executable().name == "nats-server"


async def test_a_broken_start_shows_the_servers_own_words(tmp_path: Path) -> None:
    """A store directory that can't be used fails the start with the log's last lines, and leaves no process."""
    (tmp_path / "jetstream").write_text("a file where the store's directory should be")
    server = nats_server.NatsServer(tmp_path)
    with pytest.raises(process.PlatformFailed, match=r"did not become ready(.|\n)*not a directory"):
        await server.start()
    assert not server.running
