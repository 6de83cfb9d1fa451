"""Measures what reading plans costs a worker.

`python -m tests.support.held {calls | ms} {intake | validate} BASES PLAN...` runs in its own process, like the worker:
collecting the garbage of a test process would add to the times. For each plan it prints one line of JSON with the
outcome, for how long at most the event loop was blocked, in milliseconds or in calls of its thread, and the number of
bytes by which the peak memory of the reading process exceeds that for a small plan (0 if no process was needed).
"""

import asyncio
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from ems_worker.reading import process
from tests.support import steps
from tests.support.desk import Desk, background

_BEAT_SECONDS: Final = 0.002


class Heartbeat:
    """A task that runs every two milliseconds, as handlers of events and of other plans do."""

    def __init__(self) -> None:
        self.max_delay = 0.0

    async def run(self) -> None:
        """Measures the delay of each turn, until cancelled."""
        waits = _processor_waits()
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_BEAT_SECONDS)
            delay = time.perf_counter() - before - _BEAT_SECONDS
            earlier, waits = waits, _processor_waits()
            # Time in which our threads waited for a processor is the fault of other processes.
            waited = sum(nanoseconds - earlier.get(thread, 0) for thread, nanoseconds in waits.items())
            self.max_delay = max(self.max_delay, delay - waited / 1e9)


def _processor_waits() -> dict[str, int]:
    """How long each thread of this process has waited for a processor, in nanoseconds; empty if that is unknown."""
    waits: dict[str, int] = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # the thread has ended
            waits[str(thread)] = int(thread.read_text().split()[1])
    return waits


@contextlib.asynccontextmanager
async def heartbeat() -> AsyncIterator[Callable[[], float]]:
    """Measures for how many milliseconds at most the event loop is blocked in the `async with` block."""
    heart = Heartbeat()
    async with background(heart.run()):
        await asyncio.sleep(10 * _BEAT_SECONDS)  # the heart must beat before anything is measured
        heart.max_delay = 0.0
        yield lambda: 1000 * heart.max_delay
        await asyncio.sleep(10 * _BEAT_SECONDS)


async def measure(unit: str, verb: str, plan: bytes, *, directory: Path, bases: Path) -> Mapping[str, Any]:
    """The outcome of a plan and its cost. The plan may name a base configuration in `bases`."""
    async with Desk.open(
        directory,
        max_plan_bytes=16 * 1024 * 1024,
        max_jobs=10**7,
        base_config_root=bases,
    ) as desk:
        before = _peak() or await _peak_of_a_small_plan(desk)
        message = desk.message("ems.experiment.submit", plan)
        validate = desk.services.queries.handlers()["validate"]
        async with heartbeat() if unit == "ms" else steps.between_turns() as blocked:
            if verb == "intake":
                await desk.intake.take(message)
                decisions = desk.broker.of("decision")
            else:
                decisions = [json.loads(await validate(plan))]
    outcome = _outcome(decisions[-1]) if decisions else "dead"
    return {"outcome": outcome, "blocked": blocked(), "taken": _peak() - before}


async def _peak_of_a_small_plan(desk: Desk) -> int:
    """The peak memory of a process that reads a small plan and thereby imports every module."""
    async with process.start(b"experiment_name: x\nbase_config: {a: 0}\n", desk.services.examiner.options) as started:
        await started.call("outline")
    return _peak()


def _peak() -> int:
    """The peak memory of all child processes that have ended, in bytes, including that of C code."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _outcome(decision: Mapping[str, Any]) -> str:
    if not decision["errors"]:
        return str(decision["decision"])
    return next(str(error["code"]) for error in decision["errors"] if error["code"] != "too_many_problems")


def main(unit: str, verb: str, bases: str, *plans: str) -> None:
    """Prints the measurements of each plan."""
    for plan in plans:
        with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            cost = measure(unit, verb, Path(plan).read_bytes(), directory=Path(directory), bases=Path(bases))
            measurements = runner.run(cost)
        print(json.dumps(measurements), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
