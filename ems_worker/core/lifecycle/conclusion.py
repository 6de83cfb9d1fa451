"""How a round ends: when, in which state, and why."""

from collections.abc import Callable
from dataclasses import dataclass

from ems_worker.core import text
from ems_worker.core.lifecycle.experiment import ExperimentEvent, Standing
from ems_worker.core.lifecycle.tally import Bucket, Tally

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
class Situation:
    """What the end of a round depends on besides its jobs.

    `allowed`: how many of so many jobs may fail (`max_failed`). `judging`: a change that judges jobs, or adds some, is
    being carried out.
    """

    standing: Standing
    allowed: Callable[[int], int]
    judging: bool = False


# The kind and the message of the commonest error, and how many jobs have it.
CommonestError = tuple[str, str | None, int]


def event(tally: Tally, situation: Situation) -> ExperimentEvent | None:
    """How the round ends; None while a job or a change is open, or the experiment is kept open."""
    if tally.ended < tally.total or situation.judging or situation.standing.kept_open:
        return None
    if situation.standing.cancel is not None:
        return ExperimentEvent.ABANDON
    return ExperimentEvent.SUCCEED if reason(tally, situation) is None else ExperimentEvent.MISS


def reason(tally: Tally, situation: Situation, error: CommonestError | None = None) -> str | None:
    """Why an experiment whose jobs have all ended has failed; None if it hasn't, or was cancelled.

    Excluded jobs and those that were called off count on neither side. Jobs are dropped only when too many others
    failed and the plan says to stop then. Such an experiment has failed, even if a lost run turns out to have completed
    later: the dropped jobs were never done.
    """
    if situation.standing.cancel is not None:
        return None
    if tally.failures > situation.allowed(tally.counting):
        return "too many jobs failed"
    if tally.dropped:
        return f"{tally.dropped:,} {'job was' if tally.dropped == 1 else 'jobs were'} cancelled because too many failed"
    if tally.of(Bucket.COMPLETED) or situation.allowed(tally.total) >= tally.total:
        return None
    return _nothing_completed(tally, error)


def _nothing_completed(tally: Tally, error: CommonestError | None) -> str:
    """Such as "no job completed: 100 of 100 were infeasible, most often: energy below 0"."""
    counted = [(tally.counts.get(name, 0), words) for name, words in _WORDS.items()]
    counted.append(
        (tally.excluded.get(Bucket.COMPLETED, 0), ("completed and is excluded", "completed and are excluded"))
    )
    parts = [f"{jobs:,} of {tally.total:,} {words[jobs > 1]}" for jobs, words in counted if jobs]
    if error is not None:
        kind, message, _ = error
        parts.append(f"most often: {text.single_line(message or kind, MAX_MESSAGE)}")
    beginning = "no job that counts completed" if tally.excluded.get(Bucket.COMPLETED) else "no job completed"
    return f"{beginning}: {', '.join(parts)}"
