"""How a round ends: when, in which state, and why."""

from collections.abc import Callable
from dataclasses import dataclass

from ems_worker.core import text
from ems_worker.core.lifecycle.experiment import Bucket, CancelMode, ExperimentEvent, Tally

# Characters of the commonest error in a reason.
MAX_MESSAGE = 200

# How to say that one job, or several, ended so.
_WORDS = {
    Bucket.INFEASIBLE: ("was infeasible", "were infeasible"),
    Bucket.FAILED: ("failed", "failed"),
    Bucket.LOST: ("was lost", "were lost"),
    Bucket.CANCELLED: ("was cancelled", "were cancelled"),
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What the end of a round depends on besides its jobs.

    `allowed`: how many of so many jobs may fail (`max_failed`). `cancel` and `kept_open` are those of the experiment's
    standing. `judging`: a change that judges jobs, or adds some, is being carried out.
    """

    allowed: Callable[[int], int]
    cancel: CancelMode | None = None
    kept_open: bool = False
    judging: bool = False


def event(tally: Tally, terms: Terms) -> ExperimentEvent | None:
    """How the round ends; None while a job or a change is open, or the experiment is kept open."""
    if tally.ended < tally.total or terms.judging or terms.kept_open:
        return None
    if terms.cancel is not None:
        return ExperimentEvent.ABANDON
    return ExperimentEvent.SUCCEED if reason(tally, terms) is None else ExperimentEvent.MISS


def reason(tally: Tally, terms: Terms, commonest: str | None = None) -> str | None:
    """Why an experiment whose jobs have all ended has failed; None if it hasn't.

    `commonest`: the message of the commonest error. Excluded jobs and those that were called off count on neither side.
    Jobs are dropped only when too many others failed and the plan says to stop then. Such an experiment has failed,
    even if a lost run turns out to have completed later: the dropped jobs were never done.
    """
    if tally.failures > terms.allowed(tally.counting):
        return "too many jobs failed"
    if tally.dropped:
        return f"{tally.dropped:,} {'job was' if tally.dropped == 1 else 'jobs were'} cancelled because too many failed"
    if tally.of(Bucket.COMPLETED) or terms.allowed(tally.total) >= tally.total:
        return None
    return _nothing_completed(tally, commonest)


def _nothing_completed(tally: Tally, commonest: str | None) -> str:
    """Such as "no job completed: 100 of 100 were infeasible, most often: energy below 0"."""
    counted = [(tally.counts.get(name, 0), words) for name, words in _WORDS.items()]
    counted.append(
        (tally.excluded.get(Bucket.COMPLETED, 0), ("completed and is excluded", "completed and are excluded"))
    )
    parts = [f"{jobs:,} of {tally.total:,} {words[jobs > 1]}" for jobs, words in counted if jobs]
    message = text.single_line(commonest, MAX_MESSAGE)
    if message:
        parts.append(f"most often: {message}")
    beginning = "no job that counts completed" if tally.excluded.get(Bucket.COMPLETED) else "no job completed"
    return f"{beginning}: {', '.join(parts)}"
