"""What the programs of all peers have in common: the payload, and how a driver is measured. Standard library only.

A driver runs a few tasks, prints `ready`, and waits for a line. Then it submits all tasks and collects all results,
prints the elapsed seconds, and waits for another line, so that its own use of the processor can be read meanwhile.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping

WARM = 100
METRICS = ("population", *(f"m{number}" for number in range(1, 9)))
_TRAITS = {f"trait_{number:02d}": {"mean": 0.5, "deviation": 0.125, "bound": "reflect"} for number in range(24)}
_CONFIG = {"world": {"width": 60, "height": 40}, "fish": {"count": 30, "traits": _TRAITS}, "seed": 0}
# A configuration of 2 KB, as text: every peer carries it without looking into it.
CONFIG = json.dumps(_CONFIG)


def simulate(number: int) -> dict[str, float]:
    """What a task does, which is nothing: it returns its metrics."""
    return {name: float(number + at) for at, name in enumerate(METRICS)}


def check(results: Mapping[int, Mapping[str, float]], numbers: Iterable[int]) -> None:
    """Every task has its result."""
    expected = list(numbers)
    assert len(results) == len(expected), f"{len(results)} results of {len(expected)} tasks"
    assert all(results[number] == simulate(number) for number in expected)


def drive(run: Callable[[range], None], jobs: int) -> None:
    """Drives a peer with blocking calls: `run` submits these tasks and returns once it has checked their results."""

    async def blocking(numbers: range) -> None:
        run(numbers)

    asyncio.run(drive_async(blocking, jobs))


async def drive_async(run: Callable[[range], Awaitable[None]], jobs: int) -> None:
    """The same for a peer with asyncio."""
    await run(range(WARM))
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    began = time.perf_counter()
    await run(range(WARM, WARM + jobs))
    print(time.perf_counter() - began, flush=True)
    await asyncio.to_thread(sys.stdin.readline)
