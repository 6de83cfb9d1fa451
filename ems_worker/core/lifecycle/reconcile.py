"""What follows from the orchestrator's status of runs that have been silent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent

# A run is given up only after two answers, this far apart, that it is unknown: a single one may be a stale read.
CONFIRM_SECONDS = 30.0

Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class RunStatus(Generic[Key]):
    """The orchestrator's status of a run: None if it doesn't know the run. `submitted_ms`: when it was submitted."""

    key: Key
    submitted_ms: int
    signal: Signal | None


@dataclass(frozen=True, slots=True)
class Conclusion(Generic[Key]):
    """What to do about runs after a query.

    `signals` are applied like events. `resend`: runs to send again under the same id. `missing` is for the next query:
    since when, in monotonic seconds, each unknown run has been unknown.
    """

    signals: tuple[tuple[Key, Signal], ...]
    resend: tuple[Key, ...]
    missing: Mapping[Key, float]


def conclude(statuses: Sequence[RunStatus[Key]], missing: Mapping[Key, float], now: float) -> Conclusion[Key]:
    """What follows from one query, at `now` (monotonic seconds); `missing` is that of the query before.

    An orchestrator that was wiped knows every run that was submitted after some moment, and none from before it. So
    unknown runs that were submitted no later than the oldest known one are sent again under their ids, which costs no
    attempt. An unknown run that is younger than a known one was lost.
    """
    signals: list[tuple[Key, Signal]] = []
    resend: list[Key] = []
    still_missing: dict[Key, float] = {}
    known = [status.submitted_ms for status in statuses if status.signal is not None]
    oldest_known = min(known) if known else None
    for status in statuses:
        if status.signal is not None:
            signals.append((status.key, status.signal))
            continue
        since = missing.get(status.key, now)
        if now - since < CONFIRM_SECONDS:
            still_missing[status.key] = since
        elif oldest_known is None or status.submitted_ms <= oldest_known:
            resend.append(status.key)
        else:
            message = "the orchestrator no longer knows it"
            signals.append((status.key, Signal(RunEvent.LOSE, ErrorKind.LOST, message)))
    return Conclusion(tuple(signals), tuple(resend), still_missing)
