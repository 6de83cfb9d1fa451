"""Measures for how long a cancellation blocks the event loop.

`python -m tests.support.held_cancel {calls | ms} POINTS [WHERE]` prints one line of JSON: how many jobs were cancelled,
for how long at most the loop was blocked, in milliseconds or in calls of its thread, and the seconds until the reply.
It runs in its own process, as a worker does: the garbage of a test process would add to the times.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from tests.support import held, steps, wait
from tests.support.desk import Clock, Desk, background, plan

_REPLICATES = 5
_OPEN = 200


class _RealClock(Clock):
    def monotonic(self) -> float:
        return time.monotonic()


async def measure(unit: str, points: int, where: str | None) -> dict[str, Any]:
    """Cancels an experiment of five jobs a point, some of which run."""
    with tempfile.TemporaryDirectory() as directory:
        async with Desk.open(Path(directory), _RealClock(), max_jobs=10**7) as desk:
            food = {"range": {"start": 0, "stop": points - 1, "num": points}}
            live = await desk.begin(plan(parameter_space={"food": food}, num_replicates_per_run=_REPLICATES))
            await desk.launch(live, _OPEN)
            condition = {} if where is None else {"where": where}
            executor = desk.services.executor
            async with background(executor.run()):
                async with held.heartbeat() if unit == "ms" else steps.between_turns() as blocked:
                    began = time.monotonic()
                    await desk.steer("cancel", request_id="c-1", **condition)
                    replied = time.monotonic() - began
                    await wait.until(lambda: not live.judging, timeout=600)
            change = await desk.manifest.change_from("c-1", 0)
            assert change is not None
            cancelled = sum(sum(to.values()) for to in change.counts.values())
            return {"cancelled": cancelled, "blocked": blocked(), "reply_seconds": round(replied, 3)}


def main(unit: str, points: str, where: str | None = None) -> None:
    """Prints the measurement."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure(unit, int(points), where))))


if __name__ == "__main__":
    main(*sys.argv[1:])
