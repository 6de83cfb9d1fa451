"""Tasks with Celery over Redis.

The worker is `celery -A benchmarks.peers.celery worker`, the driver `python -m benchmarks.peers.celery JOBS`.
The server is that of PEER_URL. Tasks are acknowledged once they are done (`acks_late`), and results are kept in Redis.
"""

import os
import sys

from celery import Celery
from celery.result import ResultSet

from benchmarks.peers import driving

app = Celery("peers", broker=os.environ["PEER_URL"], backend=os.environ["PEER_URL"])
app.conf.update(task_acks_late=True, broker_connection_retry_on_startup=True)


def _simulate(number: int, config: str) -> dict[str, float]:
    return driving.simulate(number)


simulate = app.task(name="simulate")(_simulate)


def run(numbers: range) -> None:
    """Submits tasks and collects their results."""
    results = ResultSet([simulate.delay(number, driving.CONFIG) for number in numbers])
    driving.check(dict(zip(numbers, results.join_native(), strict=True)), numbers)
    results.forget()


if __name__ == "__main__":
    driving.drive(run, int(sys.argv[1]))
