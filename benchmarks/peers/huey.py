"""Tasks with SqliteHuey.

The worker is `huey_consumer benchmarks.peers.huey.huey`, the driver `python -m benchmarks.peers.huey JOBS`.
The file is that of PEER_FILE, with SQLite's own `synchronous=FULL`: each step of a task is on disk.
"""

import os
import sys
import time

from huey import SqliteHuey

from benchmarks.peers import driving

huey = SqliteHuey(filename=os.environ["PEER_FILE"])
_POLL_SECONDS = 0.01


def _simulate(number: int, config: str) -> dict[str, float]:
    return driving.simulate(number)


simulate = huey.task(name="simulate")(_simulate)


def run(numbers: range) -> None:
    """Submits tasks and collects their results."""
    tasks = {number: simulate(number, driving.CONFIG) for number in numbers}
    while huey.result_count() < len(tasks):
        time.sleep(_POLL_SECONDS)
    # Reading a result removes it.
    driving.check({number: result.get() for number, result in tasks.items()}, numbers)


if __name__ == "__main__":
    # The consumer knows the task by this module's name.
    from benchmarks.peers import huey as module

    driving.drive(module.run, int(sys.argv[1]))
