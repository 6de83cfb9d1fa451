"""Keeps a part of the platform running: starts it again when it has ended, ends it first when it hangs."""

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
_LONGEST_PAUSE_SECONDS = 30.0
# A part that ran so long before it ended starts again without the pause of its earlier ends.
_STEADY_SECONDS = 60.0


@dataclass(slots=True)
class Part:
    """A process of the platform, with what it takes to start it again.

    `healthy` asks it how it is; None: only its end is noticed.
    """

    name: str
    log: Path
    pid: Callable[[], int]
    running: Callable[[], bool]
    start: Callable[[], Awaitable[None]]
    stop: Callable[[float], Awaitable[None]]
    healthy: Callable[[], Awaitable[bool]] | None = None


async def keep(part: Part, say: Callable[[str], None], *, hung_seconds: float) -> None:
    """Runs for ever. A part that was unhealthy or silent for `hung_seconds`, each time it was asked, is ended.

    After each end the next start is later, up to half a minute, until the part has run for a minute.
    """
    ends = 0
    while True:
        started = time.monotonic()
        why = await _end_of(part, say, hung_seconds)
        if time.monotonic() - started > _STEADY_SECONDS:
            ends = 0
        pause = min(_FIRST_PAUSE_SECONDS * 2**ends, _LONGEST_PAUSE_SECONDS)
        ends += 1
        say(f"{part.name} {why} (log: {part.log}); starting it again in {pause:g} s")
        await asyncio.sleep(pause)
        try:
            await part.start()
        except process.PlatformFailed as failed:
            say(f"{part.name} did not start: {failed}")


async def _end_of(part: Part, say: Callable[[str], None], hung_seconds: float) -> str:
    """Returns once the part has ended, by itself or by us; how, in words."""
    # Counted by what was asked, not by the clock: we may have been stopped ourselves.
    sick = 0.0
    asked = time.monotonic()
    while part.running():
        await asyncio.sleep(_WATCH_SECONDS)
        now = time.monotonic()
        if part.healthy is None or now - asked < _PROBE_SECONDS:
            continue
        well = await part.healthy()
        asked = time.monotonic()
        sick = 0.0 if well else sick + _PROBE_SECONDS + min(asked - now, _ANSWER_SECONDS)
        if sick >= hung_seconds and part.running():
            say(f"{part.name} has not been healthy for {sick:.0f} s; ending it")
            await part.stop(_GRACE_SECONDS)
            return "hung and was ended"
    return "ended unexpectedly"


async def answers(address: str, path: str) -> bool:
    """Whether a GET of this path is answered with 200, soon."""
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
