"""Keeps a part of the platform running: restarts it when it has ended or when it hangs."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ems_worker.local import process

_WATCH_SECONDS = 0.2
_PROBE_SECONDS = 1.0
_ANSWER_SECONDS = 2.0
_GRACE_SECONDS = 5.0
_FIRST_PAUSE_SECONDS = 0.5
_MAX_PAUSE_SECONDS = 30.0
# After a run this long, the pause before a restart is short again.
_STEADY_SECONDS = 60.0


@dataclass(slots=True)
class Part:
    """A process of the platform, and how to start, stop and probe it.

    `healthy` probes the process; if it is None, only the end of the process is noticed.
    """

    name: str
    log: Path
    pid: Callable[[], int]
    running: Callable[[], bool]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[float], Awaitable[None]]
    healthy: Callable[[], Awaitable[bool]] | None = None


async def keep(part: Part, say: Callable[[str], None], *, hung_seconds: float, start_seconds: float) -> None:
    """Restarts the part whenever it ends, until cancelled.

    A part that fails all probes for `hung_seconds`, or for `start_seconds` before its first success, is ended. The
    pause before a restart doubles each time, up to half a minute, until the part has run for a minute.
    """
    ends = 0
    while True:
        started = time.monotonic()
        reason = await _wait_for_end(part, say, hung_seconds, start_seconds)
        if time.monotonic() - started > _STEADY_SECONDS:
            ends = 0
        pause = min(_FIRST_PAUSE_SECONDS * 2**ends, _MAX_PAUSE_SECONDS)
        ends += 1
        say(f"{part.name} {reason} (log: {part.log}); restarting it in {pause:g} s")
        await asyncio.sleep(pause)
        try:
            await part.start()
        except process.PlatformFailed as failed:
            say(f"{part.name} did not start: {failed}")


async def _wait_for_end(part: Part, say: Callable[[str], None], hung_seconds: float, start_seconds: float) -> str:
    """Waits for the end of the part, ending it if it hangs; returns which of the two happened, as a phrase."""
    # The time is summed over the probes, since our own process may have been suspended in between.
    unhealthy_seconds = 0.0
    limit = start_seconds
    probed = time.monotonic()
    while part.running():
        await asyncio.sleep(_WATCH_SECONDS)
        now = time.monotonic()
        if part.healthy is None or now - probed < _PROBE_SECONDS:
            continue
        healthy = await part.healthy()
        probed = time.monotonic()
        if healthy:
            unhealthy_seconds, limit = 0.0, hung_seconds
        else:
            unhealthy_seconds += _PROBE_SECONDS + min(probed - now, _ANSWER_SECONDS)
        if unhealthy_seconds >= limit and part.running():
            say(f"{part.name} has not been healthy for {unhealthy_seconds:.0f} s; ending it")
            await part.stop(_GRACE_SECONDS)
            return "hung and was ended"
    return "ended unexpectedly"


async def answers(address: str, path: str) -> bool:
    """Whether a GET of this path is answered with 200 within two seconds."""
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError, TimeoutError, ValueError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, int(port))
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
    return False
