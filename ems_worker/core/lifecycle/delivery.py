"""Whether start commands get through to the orchestrator, by what became of the last calls, and what is wrong if not.

An answered call says more than any that began before it: one call that hangs is no sign that the next would fare so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from ems_worker.core import text
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome

# Trouble that only these runs may have stops nothing; with so many different ones it is the orchestrator's.
STUCK_RUNS = 8
# While calls are turned away or stay unanswered, one new run after this time shows whether others would fare better.
PROBE_SECONDS = 5.0
# Characters of the orchestrator's words in a reason.
LONGEST_WORDS = 300


# Shorter waits than this are not worth a word; longer ones are told in steps of it.
_STEP_SECONDS = 5.0


class Trouble(StrEnum):
    AWAY = "away"  # it can't be reached
    REFUSING = "refusing"  # it takes no run until an operator changes something
    OVERLOADED = "overloaded"  # it asks to slow down
    SILENT = "silent"  # it didn't answer in time


# The worst comes last.
_ORDER = (Trouble.SILENT, Trouble.AWAY, Trouble.OVERLOADED, Trouble.REFUSING)
_PROBED = (Trouble.OVERLOADED, Trouble.SILENT)
_WORDS = {
    Trouble.AWAY: "can't be reached",
    Trouble.REFUSING: "refuses all runs",
    Trouble.OVERLOADED: "is overloaded",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """`good`: when the last answered call began. `trouble` is what calls have met since, the last of which began at
    `since`; `words` are the orchestrator's; `runs` are the runs that met it, no more than STUCK_RUNS."""

    good: float = float("-inf")
    trouble: Trouble | None = None
    since: float = float("-inf")
    words: str = ""
    runs: frozenset[str] = frozenset()

    @property
    def stuck(self) -> bool:
        """Whether the next command would fare no better."""
        return self.trouble in (Trouble.AWAY, Trouble.REFUSING) or len(self.runs) >= STUCK_RUNS


def heard(delivery: Delivery, call: Call) -> Delivery:
    """After a call was answered, or ended without an answer."""
    worst = max(call.answers, key=_rank)
    trouble = _trouble(worst)
    if trouble is None:
        if worst.outcome is Outcome.LATE or call.began < delivery.good:
            return delivery
        return Delivery(call.began) if call.began >= delivery.since else replace(delivery, good=call.began)
    if trouble is Trouble.SILENT and call.began <= delivery.good:
        return delivery
    met = {answer.simulation_id for answer in call.answers if _trouble(answer) is trouble}
    runs = frozenset(sorted(delivery.runs | met)[:STUCK_RUNS])
    # Why it is away says where, too, and the code says nothing more.
    said = worst.message if trouble is Trouble.AWAY and worst.message else f"{worst.code}: {worst.message}"
    words = text.single_line(said, LONGEST_WORDS)
    return Delivery(delivery.good, trouble, max(delivery.since, call.began), words, runs)


def alive(delivery: Delivery) -> Delivery:
    """After a sign that commands arrive though their answers don't: silence keeps nothing from being sent then."""
    return replace(delivery, runs=frozenset()) if delivery.trouble is Trouble.SILENT else delivery


def room(delivery: Delivery, room: int, unprobed_seconds: float) -> int:
    """How many runs may be claimed of those that there is room for, so long after the last were claimed."""
    if not delivery.stuck:
        return room
    return min(room, 1) if delivery.trouble in _PROBED and unprobed_seconds >= PROBE_SECONDS else 0


def reason(delivery: Delivery, unanswered: Sequence[float]) -> str | None:
    """What is wrong, in words, None for nothing; `unanswered`: for how many seconds each start has had no answer."""
    if delivery.trouble is None:
        return None
    if delivery.trouble is Trouble.SILENT:
        return f"the orchestrator is slow to answer: {waits(unanswered) or 'the last starts had no answer in time'}"
    return f"the orchestrator {_WORDS[delivery.trouble]}: {delivery.words}"


def waits(unanswered: Sequence[float]) -> str | None:
    """How many starts have waited how long for an answer, in words that change seldom; None below some seconds."""
    longest = max(unanswered, default=0.0)
    if longest < _STEP_SECONDS:
        return None
    for_ = f"{longest // 60:.0f} min" if longest >= 60 else f"{longest // _STEP_SECONDS * _STEP_SECONDS:.0f} s"
    count = len(unanswered)
    return f"{count:,} {'start' if count == 1 else 'starts'} without an answer, the oldest for {for_}"


def _trouble(answer: Answer) -> Trouble | None:
    if answer.outcome is Outcome.HALT:
        return Trouble.REFUSING
    if answer.outcome is Outcome.SLOW_DOWN:
        return Trouble.OVERLOADED
    if answer.code == "UNAVAILABLE":
        return Trouble.AWAY
    return Trouble.SILENT if answer.code == "DEADLINE_EXCEEDED" else None


def _rank(answer: Answer) -> int:
    trouble = _trouble(answer)
    return -1 if trouble is None else _ORDER.index(trouble)
