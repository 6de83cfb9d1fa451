"""What reading plans costs a worker: `python -m tests.support.held {intake | validate} BASES PLAN...`.

In a process of its own, as the worker is: what else a test process has in memory would be collected as garbage on the
way. Prints one line of JSON for each plan: its outcome, the most function calls between two turns of the event loop,
the longest time that the loop was held in milliseconds, and by how many bytes the peak of the reading process is above
that for a small plan; 0 where there was none.
"""

import asyncio
import contextlib
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from ems_worker.adapters import yaml_reader
from ems_worker.adapters.files import BaseFiles
from ems_worker.reading import process
from ems_worker.service.queries import Queries
from tests.support import steps
from tests.support.desk import Desk, background

_BEAT_SECONDS: Final = 0.002


class Heartbeat:
    """A task that wants its turn every other millisecond, as events and other plans do."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def run(self) -> None:
        """For ever."""
        delays = _delays()
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_BEAT_SECONDS)
            waited = time.perf_counter() - before - _BEAT_SECONDS
            earlier, delays = delays, _delays()
            # A thread that waits for a processor while it holds the interpreter holds it because others are busy.
            busy = sum(delay - earlier.get(thread, 0) for thread, delay in delays.items())
            self.longest = max(self.longest, waited - busy / 1e9)


def _delays() -> dict[str, int]:
    """How long each thread of this process has waited for a processor, in nanoseconds; nothing where none tells."""
    found: dict[str, int] = {}
    for thread in Path("/proc/self/task").glob("*/schedstat"):
        with contextlib.suppress(OSError):  # it has just ended
            found[str(thread)] = int(thread.read_text().split()[1])
    return found


@contextlib.asynccontextmanager
async def held() -> AsyncIterator[Heartbeat]:
    """Measures how long the loop was held meanwhile."""
    heart = Heartbeat()
    async with background(heart.run()):
        await asyncio.sleep(10 * _BEAT_SECONDS)  # what is measured is a heart that beats
        heart.longest = 0.0
        yield heart
        await asyncio.sleep(10 * _BEAT_SECONDS)


async def measure(verb: str, plan: bytes, directory: Path, bases: Path) -> Mapping[str, Any]:
    """What becomes of a plan, and what that costs. It may name a base configuration in `bases`."""
    async with Desk.open(
        directory,
        max_bytes=16 * 1024 * 1024,
        max_jobs=10**7,
        message_limit=lambda: 4 * 1024 * 1024,
        read_base=BaseFiles(bases).read,
    ) as desk:
        before = _peak() or await _peak_of_a_small_plan(desk)
        message = desk.message("ems.experiment.submit", plan)
        validate = Queries(
            desk.ledger, desk.manifest, yaml_reader, desk.examiner, desk.clock, "w1", lambda: 4 * 1024 * 1024
        ).handlers()["validate"]
        async with held() as heart, steps.between_turns() as longest:
            if verb == "intake":
                await desk.intake.take(message)
                decisions = desk.broker.of("decision")
            else:
                decisions = [json.loads(await validate(plan))]
    outcome = _outcome(decisions[-1]) if decisions else "dead"
    return {"outcome": outcome, "steps": longest(), "held_ms": 1000 * heart.longest, "taken": _peak() - before}


async def _peak_of_a_small_plan(desk: Desk) -> int:
    """Of a process that examines one; by then all is imported that ever is."""
    async with process.begin(b"experiment_name: x\nbase_config: {a: 0}\n", desk.examiner.bounds) as begun:
        await begun.call("outline")
    return _peak()


def _peak() -> int:
    """The most that any ended process of ours held, in bytes; C code included, which Python's own tracing isn't."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def _outcome(decision: Mapping[str, Any]) -> str:
    if not decision["errors"]:
        return str(decision["decision"])
    return next(str(one["code"]) for one in decision["errors"] if one["code"] != "too_many_problems")


def main(verb: str, bases: str, *plans: str) -> None:
    """Prints what `measure` finds."""
    for plan in plans:
        with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(measure(verb, Path(plan).read_bytes(), Path(directory), Path(bases)))
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
