"""What a platform does with a part that hangs, and with one that ends again and again."""

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

QUICK = "platform.HUNG_SECONDS = 2.0"
SICK = """
import http.server, sys
class Sick(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_error(503)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Sick).serve_forever()
"""
SILENT = """
import signal, socket, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
listening = socket.create_server(("127.0.0.1", int(sys.argv[1])))
signal.pause()
"""


async def test_a_worker_that_hangs_is_restarted(swept: Path) -> None:
    """Stopped by SIGSTOP it answers nothing: it is ended, said so, started again, and goes on with its experiment."""
    here = await up(swept, before=QUICK)
    async with client.EmsClient(here.addresses["nats_url"]) as ems:
        await ems.publish(plan())
        await ems.decision(1, timeout=20)
        running = processes.mentioning(str(swept / "data"))
        [worker] = [pid for pid, command in running.items() if "ems_worker.cli.worker" in command]
        os.kill(worker, signal.SIGSTOP)
        said = here.program.log.read_text
        await wait.until(lambda: "worker hung and was ended" in said(), timeout=40, what="the worker to be ended")
        assert "worker has not been healthy for" in said()
        assert worker not in processes.mentioning(str(swept / "data"))
        http = here.addresses["http"].removeprefix("http://")
        await wait.until(lambda: keeping.answers(http, "/readyz"), timeout=40, what="the worker to be back")
        async with asyncio.timeout(60):
            assert (await ems.wait("small"))["state"] == "completed"
    await here.program.stop(grace=30)
    assert here.program.exit_code == 0
    assert processes.mentioning(str(swept)) == {}


@contextlib.asynccontextmanager
async def kept(directory: Path, code: str, hung_seconds: float = 1.5) -> AsyncIterator[tuple[process.Child, list[str]]]:
    """A Python program with a port as its argument, kept running; what is said of it."""
    port = ports.free_port()
    child = process.Child("part", [sys.executable, "-c", code, str(port)], log=directory / "part.log")

    async def start() -> None:
        child.start()

    async def healthy() -> bool:
        return await keeping.answers(f"{ports.LOOPBACK}:{port}", "/healthz")

    part = keeping.Part("part", child.log, lambda: child.pid, lambda: child.running, start, child.stop, healthy=healthy)
    said: list[str] = []
    child.start()
    keeping_it = asyncio.create_task(keeping.keep(part, said.append, hung_seconds=hung_seconds))
    try:
        yield child, said
    finally:
        keeping_it.cancel()
        await child.kill()


@pytest.mark.parametrize("code", [SICK, SILENT], ids=["unhealthy", "silent"])
async def test_what_is_unhealthy_or_silent_is_ended_by_force_if_need_be(tmp_path: Path, code: str) -> None:
    """One says 503; the other says nothing, and ignores SIGTERM."""
    async with kept(tmp_path, code) as (child, said):
        first = child.pid
        await wait.until(lambda: child.pid != first, timeout=40, what="the part to be started again")
        assert "part has not been healthy for" in said[0]
        assert "part hung and was ended" in said[1]
        assert process.identity(first) == ""


async def test_what_ends_again_and_again_is_started_ever_more_slowly(tmp_path: Path) -> None:
    """The pause doubles, so that a part that can't run doesn't take the machine."""
    async with kept(tmp_path, "") as (_, said):
        await wait.until(lambda: len(said) == 3, timeout=30, what="three ends")
    pauses = [line.rpartition("restarting it in ")[2] for line in said]
    assert pauses == ["0.5 s", "1 s", "2 s"]
    assert all("ended unexpectedly (log: " in line for line in said)


async def test_what_is_healthy_is_left_alone(tmp_path: Path) -> None:
    """However often it is asked."""
    asked = []

    async def healthy() -> bool:
        asked.append(1)
        return len(asked) != 2  # a single bad answer is no illness

    async def never(*_: object) -> None:
        raise AssertionError("it was started or stopped")

    part = keeping.Part("part", tmp_path, lambda: 1, lambda: True, never, never, healthy=healthy)
    keeping_it = asyncio.create_task(keeping.keep(part, print, hung_seconds=2.0))
    await wait.until(lambda: len(asked) >= 4, what="four questions")
    assert not keeping_it.done()
    keeping_it.cancel()
