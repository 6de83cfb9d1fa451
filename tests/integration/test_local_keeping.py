"""A platform restarts a part that hangs, and one that ends again and again."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client
from ems_worker.local import keeping, ports, process
from tests.support import processes, wait
from tests.support.local_platform import plan, up

SHORT_PATIENCE = "platform.HUNG_SECONDS = 5.0"
UNHEALTHY = """
import http.server, sys
class Unhealthy(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(503)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Unhealthy).serve_forever()
"""
SILENT = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


@pytest.mark.long
async def test_a_worker_that_hangs_is_restarted(swept: Path) -> None:
    """A worker that SIGSTOP suspends is ended and restarted, with a message, and then completes its experiment."""
    platform = await up(swept, before=SHORT_PATIENCE)
    async with client.EmsClient(platform.addresses["nats_url"]) as ems:
        await ems.publish(plan())
        await ems.decision(1, timeout=20)
        running = processes.mentioning(str(swept / "data"))
        [worker] = [pid for pid, command in running.items() if "ems_worker.cli.worker" in command]
        os.kill(worker, signal.SIGSTOP)
        output = platform.program.log.read_text
        await wait.until(lambda: "worker hung and was ended" in output(), timeout=40, what="the worker to be ended")
        assert "worker has not been healthy for" in output()
        assert worker not in processes.mentioning(str(swept / "data"))
        http = platform.addresses["http"].removeprefix("http://")
        await wait.until(lambda: keeping.answers(http, "/readyz"), timeout=40, what="the worker to be back")
        assert (await ems.wait("small"))["state"] == "completed"
    await platform.program.stop(grace=30)
    assert platform.program.exit_code == 0
    assert processes.mentioning(str(swept)) == {}


@contextlib.asynccontextmanager
async def kept(directory: Path, code: str) -> AsyncIterator[tuple[process.Child, list[str]]]:
    """Keeps a Python program running, which gets a port as its argument; yields it and the messages about it."""
    port = ports.free_port()
    child = process.Child("part", [sys.executable, "-c", code, str(port)], log=directory / "part.log")

    async def start() -> None:
        child.start()

    async def healthy() -> bool:
        return await keeping.answers(f"{ports.LOOPBACK}:{port}", "/healthz")

    part = keeping.Part(
        "part",
        child.log,
        pid=lambda: child.pid,
        running=lambda: child.running,
        start=start,
        stop=child.stop,
        healthy=healthy,
    )
    messages: list[str] = []
    child.start()
    keeper = asyncio.create_task(keeping.keep(part, messages.append, hung_seconds=1.5, start_seconds=1.5))
    try:
        yield child, messages
    finally:
        keeper.cancel()
        await child.kill()


@pytest.mark.parametrize("code", [UNHEALTHY, SILENT], ids=["unhealthy", "silent"])
async def test_a_part_that_is_unhealthy_or_silent_is_ended_and_restarted(tmp_path: Path, code: str) -> None:
    """One part answers 503; the other doesn't answer and ignores SIGTERM, so that it is killed."""
    async with kept(tmp_path, code) as (child, messages):
        first = child.pid
        await wait.until(lambda: child.pid != first, timeout=40, what="the part to be restarted")
        assert "part has not been healthy for" in messages[0]
        assert "part hung and was ended" in messages[1]
        assert process.identity(first) == ""


async def test_the_pause_before_a_restart_doubles(tmp_path: Path) -> None:
    """A part that always ends at once is restarted at growing intervals, with a message about each end."""
    async with kept(tmp_path, "") as (_, messages):
        await wait.until(lambda: len(messages) == 3, timeout=30, what="three ends")
    pauses = [message.rpartition("restarting it in ")[2] for message in messages]
    assert pauses == ["0.5 s", "1 s", "2 s"]
    assert all("ended unexpectedly (log: " in message for message in messages)


async def test_a_part_that_fails_single_probes_is_not_restarted(tmp_path: Path) -> None:
    """Only a part that fails all probes for the whole time is ended; each success starts that time again."""
    probes = []

    async def healthy() -> bool:
        probes.append(1)
        return len(probes) % 2 == 1

    async def never(*_: object) -> None:
        raise AssertionError("the part was started or stopped")

    part = keeping.Part("part", tmp_path, pid=lambda: 1, running=lambda: True, start=never, stop=never, healthy=healthy)
    keeper = asyncio.create_task(keeping.keep(part, print, hung_seconds=2.0, start_seconds=2.0))
    await wait.until(lambda: len(probes) >= 6, what="six probes")
    assert not keeper.done()
    keeper.cancel()


@pytest.mark.long
async def test_a_part_that_is_starting_gets_more_time(tmp_path: Path) -> None:
    """Before its first successful probe, the limit is that for the start and not that for a part that hangs."""
    probes = []

    async def healthy() -> bool:
        probes.append(1)
        return len(probes) == 5

    async def start() -> None:
        """The part is not started again: the test ends first."""

    stopped = asyncio.Event()

    async def stop(_: float) -> None:
        stopped.set()

    part = keeping.Part(
        "part", tmp_path, pid=lambda: 1, running=lambda: not stopped.is_set(), start=start, stop=stop, healthy=healthy
    )
    keeper = asyncio.create_task(keeping.keep(part, print, hung_seconds=2.0, start_seconds=60.0))
    await wait.until(lambda: len(probes) >= 5, what="five probes")
    assert not stopped.is_set()
    await wait.until(stopped.is_set, what="the part to be stopped once it hangs")
    keeper.cancel()
