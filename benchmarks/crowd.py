"""How long choosing what to start takes with thousands of live experiments: `python -m benchmarks.crowd`.

All slots are taken. One run ends, and the next start call is awaited. How much longer that takes with many live
experiments than with one is the time that choosing takes, and whatever else depends on their number.
"""

import argparse
import asyncio
import contextlib
import sqlite3
import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import latency, manifests, orchestrator, worker
from benchmarks.worker import Worker
from tests.support import servers, wait

_SLOTS = 100
_WARM = 2
# What a start leaves to be done is over by then.
_SETTLE_SECONDS = 3.0
_JOBS = 10


async def refill_seconds(live: int, times: int) -> list[float]:
    """From the end of a run to the start of the next, with so many live experiments."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        async with (
            servers.NatsServer(folder / "nats") as server,
            orchestrator.started(folder, None, slots=_SLOTS) as accepting,
        ):
            # One experiment has enough jobs to go on by itself.
            jobs = _JOBS if live > 1 else _JOBS * (_SLOTS + _WARM + times)
            async with worker.running(folder, server, accepting, EMS_HOLD="true") as held:
                ack = await held.ems.publish(worker.json_of(worker.plan("live", jobs)))
                assert (await held.ems.decision(ack.seq, timeout=30))["decision"] == "accepted"
                await wait.until(lambda: _runs(held.data, "pending", jobs), what="the expansion")
            manifests.copy(folder / "data", "live", live - 1)
            async with worker.running(folder, server, accepting) as running:
                await wait.until(lambda: _runs(running.data, "submitted", _SLOTS), timeout=60, what="full slots")
                await wait.let_pass(_SETTLE_SECONDS)
                return [await _refill(running) for _ in range(_WARM + times)][_WARM:]


async def _refill(running: Worker) -> float:
    [simulation_id] = await wait.until(lambda: _runs(running.data, "submitted", 1), what="a run that is open")
    await running.orchestrator.times()
    began = time.time()
    await running.connection.publish("sim.run_completed", latency.completed(simulation_id))
    return await latency.next_start(running) - began


def _runs(data: Path, state: str, count: int) -> list[str]:
    """The ids of so many runs in this state; none if there are fewer."""
    query = (
        "SELECT printf('%s-p%06d-r%03d-a%d', experiment_id, point, replicate, attempt) "
        "FROM runs JOIN experiments ON key = experiment WHERE runs.state = ? LIMIT ?"
    )
    with contextlib.closing(sqlite3.connect(data / "manifest.db")) as database:
        found = [str(name) for [name] in database.execute(query, [state, count])]
    return found if len(found) == count else []


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--live", type=int, nargs="*", default=[1, 5000])
    parser.add_argument("--times", type=int, default=15)
    options = parser.parse_args()
    for live in options.live:
        seconds = asyncio.run(refill_seconds(live, options.times))
        print(f"{live:6,} live experiments: end to next start {1000 * statistics.median(seconds):.1f} ms", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
