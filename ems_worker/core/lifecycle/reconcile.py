"""What to make of the orchestrator's word on runs that have been silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent

# A run is given up only after two answers that it isn't known, so far apart: one may be a stale read.
CONFIRM_SECONDS = 30.0

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Asked(Generic[Key]):
    """A run that was asked for: when it was submitted (ms), and the answer (None: it is not known)."""

    key: Key
    submitted_ms: int
    answer: Signal | None


@dataclass(frozen=True, slots=True)
class Judgement(Generic[Key]):
    """`signals` are to be applied like events; `again`: to be sent again under the same id; `missing` is remembered
    until the next look: since when (monotonic seconds) each run has not been known."""

    signals: tuple[tuple[Key, Signal], ...]
    again: tuple[Key, ...]
    missing: Mapping[Key, float]


def judge(asked: Sequence[Asked[Key]], missing: Mapping[Key, float], now: float) -> Judgement[Key]:
    """What follows from one look, at `now` (monotonic seconds).

    An orchestrator that was wiped knows none of the runs that it was given before some moment and all that it was given
    after it: unknown runs that were sent before every known one, or with the first of them, are sent again under their
    ids and cost no attempt. An unknown run in the midst of known ones was lost.
    """
    signals: list[tuple[Key, Signal]] = []
    again: list[Key] = []
    still: dict[Key, float] = {}
    known = [one.submitted_ms for one in asked if one.answer is not None]
    oldest_known = min(known) if known else None
    for one in asked:
        if one.answer is not None:
            signals.append((one.key, one.answer))
            continue
        since = missing.get(one.key, now)
        if now - since < CONFIRM_SECONDS:
            still[one.key] = since
        elif oldest_known is None or one.submitted_ms <= oldest_known:
            again.append(one.key)
        else:
            words = "the orchestrator no longer knows it"
            signals.append((one.key, Signal(RunEvent.LOSE, ErrorKind.LOST, words)))
    return Judgement(tuple(signals), tuple(again), still)
