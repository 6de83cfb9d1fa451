"""Why jobs did not complete, in a few lines: each reason once, with the number of its jobs and the id of one run."""

import collections
import contextlib
from typing import TYPE_CHECKING, Any, NamedTuple

from ems_worker.cli import numbers, shell
from ems_worker.core.lifecycle.tally import Bucket

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

STATES = (Bucket.FAILED, Bucket.LOST, Bucket.INFEASIBLE)
# Limits of the summary: jobs read of each state, reasons printed, characters of a reason. `ems export` has everything.
_MAX_JOBS = 500
_MAX_REASONS = 5
_MAX_LENGTH = 160


class Reason(NamedTuple):
    """Why jobs did not complete: how many have this reason, and the run of one of them."""

    jobs: int
    text: str
    example: str


async def gather(ems: "client.EmsClient", status: Document) -> list[Reason]:
    """The reasons why jobs failed, were lost or are infeasible, the most frequent first."""
    counted: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    for state in STATES:
        if not status["counts"].get(state.value):
            continue
        jobs_read = 0
        async with contextlib.aclosing(ems.jobs(status["experiment_id"], state=state.value)) as jobs:
            async for job in jobs:
                reason = _reason(state, job["error"] or {})
                counted[reason] += 1
                examples.setdefault(reason, job["simulation_id"])
                jobs_read += 1
                if jobs_read == _MAX_JOBS:
                    break
    return [Reason(count, reason, examples[reason]) for reason, count in counted.most_common()]


async def show(ems: "client.EmsClient", status: Document) -> None:
    """Prints the most frequent reasons why jobs failed, were lost or are infeasible, if there are such jobs."""
    reasons = await gather(ems, status)
    for reason in reasons[:_MAX_REASONS]:
        shell.out(f"  {reason.jobs:,} x {reason.text} ({reason.example})")
    more = len(reasons) - _MAX_REASONS
    if more > 0:
        shell.out(f"  and {numbers.counted(more, 'other reason')}: ems export {status['experiment_id']}")


def _reason(state: Bucket, error: Document) -> str:
    """The error's kind and the last line of its message, which is the most telling line of a traceback."""
    lines = [line.strip() for line in (error.get("message") or "").splitlines() if line.strip()]
    message = lines[-1] if lines else "no reason given"
    kind = error.get("kind")
    head = state.value if kind in (None, state.value) else f"{state.value}, {kind}"
    return f"{head}: {message if len(message) <= _MAX_LENGTH else message[: _MAX_LENGTH - 3] + '...'}"
