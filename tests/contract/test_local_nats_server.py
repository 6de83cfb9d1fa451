"""The nats-server of the platform, as its clients see it."""

from pathlib import Path

import nats
import pytest

from ems_worker.local import nats_server, process
from tests.support import servers


@pytest.mark.parametrize("crash", [False, True])
async def test_messages_and_port_survive_a_restart(tmp_path: Path, crash: bool) -> None:
    """After a stop or a crash, a client finds the restarted server at the same address, with the stored messages."""
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


async def test_a_given_port_that_is_taken_is_an_error(tmp_path: Path) -> None:
    """The error names the port, and the server that has the port keeps running."""
    async with servers.NatsServer(tmp_path / "first") as first:
        second = nats_server.NatsServer(tmp_path / "second", port=first.port)
        with pytest.raises(process.PlatformFailed, match=f"port {first.port} is taken"):
            await second.start()
        assert first.running


async def test_the_executable_is_found_without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """With an empty PATH, that of this Python environment is used."""
    monkeypatch.setenv("PATH", "")
    assert nats_server.find_executable().name == "nats-server"


async def test_the_error_of_a_failed_start_has_the_end_of_the_log(tmp_path: Path) -> None:
    """An unusable store directory fails the start with the last lines of the log, and no process is left."""
    (tmp_path / "jetstream").write_text("a file where the store's directory should be")
    server = nats_server.NatsServer(tmp_path)
    with pytest.raises(process.PlatformFailed, match=r"did not become ready(.|\n)*not a directory"):
        await server.start()
    assert not server.running
