"""Tasks over JetStream with FastStream: `worker URL`, or `driver URL JOBS`.

Both streams are files. A task is acknowledged once its result is stored, and every message is published with an
acknowledgement.
"""

import asyncio
import os
import sys
from typing import Any

import uvloop
from faststream import FastStream
from faststream.nats import JStream, NatsBroker, PullSub, StorageType

from benchmarks.peers import driving

_IN_FLIGHT = 64
TASKS = JStream("TASKS", subjects=["tasks"], storage=StorageType.FILE)
RESULTS = JStream("RESULTS", subjects=["results"], storage=StorageType.FILE)
# What the library recommends for a durable consumer.
PULL = PullSub(batch_size=_IN_FLIGHT)


async def simulate(task: dict[str, Any]) -> dict[str, Any]:
    """The task. What it returns is published."""
    return {"number": task["number"], "metrics": driving.simulate(task["number"])}


async def work(broker: NatsBroker) -> None:
    """Runs tasks until the process is ended."""
    handler = broker.subscriber("tasks", stream=TASKS, durable="worker", pull_sub=PULL, max_workers=_IN_FLIGHT)
    publisher = broker.publisher("results", stream=RESULTS)
    handler(publisher(simulate))
    await FastStream(broker).run()


async def drive(broker: NatsBroker, jobs: int) -> None:
    """Submits tasks and collects their results."""
    results: dict[int, dict[str, float]] = {}
    expected: set[int] = set()
    complete = asyncio.Event()

    async def collect(result: dict[str, Any]) -> None:
        results[result["number"]] = result["metrics"]
        if len(results) == len(expected):
            complete.set()

    async def run(numbers: range) -> None:
        results.clear()
        expected.clear()
        expected.update(numbers)
        complete.clear()
        waiting = iter(numbers)

        async def publish() -> None:
            for number in waiting:
                await broker.publish({"number": number, "config": driving.CONFIG}, "tasks", stream="TASKS")

        await asyncio.gather(*(publish() for _ in range(_IN_FLIGHT)))
        await complete.wait()
        driving.check(results, numbers)

    broker.subscriber("results", stream=RESULTS, durable="driver", pull_sub=PULL, max_workers=_IN_FLIGHT)(collect)
    # The stream of tasks exists once its publisher does.
    broker.publisher("tasks", stream=TASKS)
    await broker.start()
    await driving.drive_async(run, jobs)
    os._exit(0)  # to stop takes as long as the library's timeouts


def main() -> int:
    broker = NatsBroker(sys.argv[2], logger=None)
    uvloop.run(work(broker) if sys.argv[1] == "worker" else drive(broker, int(sys.argv[3])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
