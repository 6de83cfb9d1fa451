"""Why jobs did not complete, in a few lines: the same reason is told once, with a run that had it."""

import collections
import contextlib
from typing import TYPE_CHECKING, Any

from ems_worker.cli import shell
from ems_worker.core.lifecycle.experiment import Bucket

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

_STATES = (Bucket.FAILED, Bucket.LOST, Bucket.INFEASIBLE)
# Jobs that are looked at of each state, reasons that are told, letters of a reason: `ems export` has all of it.
_JOBS = 500
_REASONS = 5
_LETTERS = 160


async def tell(ems: "client.EmsClient", status: Document) -> None:
    """Prints the most frequent reasons of jobs that failed, were lost or are infeasible, if there are any."""
    counted: collections.Counter[str] = collections.Counter()
    examples: dict[str, str] = {}
    for state in _STATES:
        if not status["counts"].get(state.value):
            continue
        looked_at = 0
        async with contextlib.aclosing(ems.jobs(status["experiment_id"], state=state.value)) as jobs:
            async for job in jobs:
                reason = _reason(state, job["error"] or {})
                counted[reason] += 1
                examples.setdefault(reason, job["simulation_id"])
                looked_at += 1
                if looked_at == _JOBS:
                    break
    for reason, count in counted.most_common(_REASONS):
        shell.out(f"  {count:,} x {reason} ({examples[reason]})")
    more = len(counted) - _REASONS
    if more > 0:
        noun = "reason" if more == 1 else "reasons"
        shell.out(f"  and {more:,} other {noun}: ems export {status['experiment_id']}")


def _reason(state: Bucket, error: Document) -> str:
    """The kind and the last line, which says most where a program's dying words are several."""
    lines = [line.strip() for line in (error.get("message") or "").splitlines() if line.strip()]
    words = lines[-1] if lines else "no reason given"
    kind = error.get("kind")
    head = state.value if kind in (None, state.value) else f"{state.value}, {kind}"
    return f"{head}: {words if len(words) <= _LETTERS else words[: _LETTERS - 3] + '...'}"
