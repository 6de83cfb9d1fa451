"""Publishes how far open runs have come, from the files `progress.json` that their simulations write."""

import asyncio
import dataclasses
import json
import math
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from ems_worker.local.orchestrator import events, model, regular
from ems_worker.local.orchestrator.slots import Slots

_FILE = "progress.json"
_LIMIT_BYTES = 4096
_TICK_SECONDS = 0.5
# A run is reported at most once in this time, and not before it has run for as long.
_MIN_PAUSE_SECONDS = 1.0
# The longer a run takes, the more rarely it is reported: after each hundredth of its time so far, at least twice a
# minute.
_PART = 100
_MAX_PAUSE_SECONDS = 30.0


@dataclasses.dataclass(frozen=True, slots=True)
class _Seen:
    """What was last published of a run: the file by time and size, and when the run may be reported again."""

    file: tuple[int, int]
    due: float


class Progress:
    """Watches the runs in the slots. Progress isn't stored: what the broker misses is lost, and the next one comes."""

    def __init__(self, slots: Slots, publish: Callable[[model.Event], Awaitable[None]]) -> None:
        self._slots = slots
        self._publish = publish
        self._seen: dict[str, _Seen] = {}

    async def run(self) -> None:
        """Publishes until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            await self.check(time.monotonic(), time.time_ns())

    async def check(self, now: float, now_ns: int) -> None:
        """Publishes what is new. `now`: monotonic seconds; `now_ns`: nanoseconds since the Unix epoch."""
        running = self._slots.running()
        self._seen = {run.simulation_id: self._seen.get(run.simulation_id, _Seen((0, 0), 0.0)) for run, _ in running}
        for run, output in running:
            seen = self._seen[run.simulation_id]
            age = (now_ns - run.started_ns) / 1e9
            if now < seen.due or age < _MIN_PAUSE_SECONDS:
                continue
            read = _read(output / _FILE, seen.file)
            if read is None:
                continue
            file, step, total = read
            pause = min(max(age / _PART, _MIN_PAUSE_SECONDS), _MAX_PAUSE_SECONDS)
            self._seen[run.simulation_id] = _Seen(file, now + pause)
            await self._publish(events.progress(run, step, total, at_ns=now_ns))


def _read(path: Path, seen: tuple[int, int]) -> tuple[tuple[int, int], float, float | None] | None:
    """The file by time and size, the step and the total in it; None if nothing is new or it can't be used (yet)."""
    try:
        with os.fdopen(regular.opened(path), "rb") as opened:
            found = os.fstat(opened.fileno())
            file = (found.st_mtime_ns, found.st_size)
            if file == seen or found.st_size > _LIMIT_BYTES:
                return None
            document = json.loads(opened.read(_LIMIT_BYTES))
    except (OSError, ValueError, RecursionError):  # a file that is being written is read again later
        return None
    if not isinstance(document, dict):
        return None
    step, total = _number(document.get("step")), _number(document.get("total"))
    return None if step is None else (file, step, total or None)


def _number(value: Any) -> float | None:
    """The value if it is a finite number of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
