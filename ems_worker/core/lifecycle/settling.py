"""When a round settles: enough of its jobs have ended, and stragglers had their grace."""

from dataclasses import dataclass
from enum import StrEnum

from ems_worker.core.lifecycle.tally import Tally


class Cause(StrEnum):
    """Why a round settled."""

    QUORUM = "quorum"  # enough jobs ended, and the grace is over
    ENDED = "ended"  # every job ended


@dataclass(frozen=True, slots=True)
class RoundJobs:
    """How many jobs a round has, and how many of them have ended."""

    ended: int
    total: int


def jobs(tally: Tally, earlier_jobs: int) -> RoundJobs:
    """The jobs of the present round. The experiment has `earlier_jobs` besides, which ended in the rounds before."""
    return RoundJobs(tally.ended - earlier_jobs, tally.total - earlier_jobs)


@dataclass(frozen=True, slots=True)
class Terms:
    """`quorum`: how many jobs have to end, None: all of them. `grace_ms`: how long the others may take after that."""

    quorum: int | None = None
    grace_ms: int = 0


def reached(of_round: RoundJobs, terms: Terms) -> bool:
    """Whether enough jobs have ended."""
    return of_round.ended >= (of_round.total if terms.quorum is None else min(terms.quorum, of_round.total))


def waited(of_round: RoundJobs, terms: Terms, settling_ms: int | None, *, elapsed_ms: int, paused: bool) -> int | None:
    """How long the round has waited for stragglers since its quorum; None before that.

    `settling_ms` is what it was `elapsed_ms` ago. The time stands still while the experiment is paused. It counts from
    zero if a retry or an extension leads back below the quorum.
    """
    if not reached(of_round, terms):
        return None
    if settling_ms is None:
        return 0
    return settling_ms if paused else settling_ms + max(0, elapsed_ms)


def settles(of_round: RoundJobs, terms: Terms, settling_ms: int | None, *, paused: bool, judging: bool) -> Cause | None:
    """Whether the round settles now, and why. It settles once; the caller records that it has.

    `judging`: a change that judges jobs, or adds some, is being carried out. Until that is done nothing is settled.
    """
    if judging:
        return None
    if of_round.ended >= of_round.total:
        return Cause.ENDED
    if paused or settling_ms is None or settling_ms < terms.grace_ms or not reached(of_round, terms):
        return None
    return Cause.QUORUM
