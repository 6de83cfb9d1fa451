"""Whether start commands get through to the orchestrator, judged by the results of recent calls, and if not, why.

An answered call is stronger evidence than any call that began before it: one call that hangs doesn't show that the next
one would hang too.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct
from msgspec.structs import replace

from ems_worker.core import text
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome

# An obstacle that only a few runs met may be due to these runs, and stops nothing. After this many different runs it is
# due to the orchestrator.
STUCK_RUNS = 8
# While the orchestrator is overloaded or silent, one new run at this interval shows whether others would get through.
PROBE_SECONDS = 5.0
# Characters of the orchestrator's message in a reason.
MAX_MESSAGE = 300


# A shorter wait than this isn't reported; longer ones are reported in steps of it.
_STEP_SECONDS = 5.0


class Obstacle(StrEnum):
    """Why a start command did not get through."""

    AWAY = "away"  # the orchestrator can't be reached
    REFUSING = "refusing"  # it accepts no run until an operator changes something
    OVERLOADED = "overloaded"  # it asks to slow down
    SILENT = "silent"  # it didn't answer in time


# From the mildest to the worst.
_ORDER = (Obstacle.SILENT, Obstacle.AWAY, Obstacle.OVERLOADED, Obstacle.REFUSING)
_PROBED = (Obstacle.OVERLOADED, Obstacle.SILENT)
_DESCRIPTIONS = {
    Obstacle.AWAY: "can't be reached",
    Obstacle.REFUSING: "refuses all runs",
    Obstacle.OVERLOADED: "is overloaded",
}


class Delivery(Struct, frozen=True, gc=False):
    """What recent calls have shown.

    `answered`: when the most recent answered call began. `obstacle`: what calls have met since, with the orchestrator's
    `message`. `since`: when the most recent call that met it began. `runs`: the runs that met it, at most STUCK_RUNS.
    """

    answered: float = float("-inf")
    obstacle: Obstacle | None = None
    since: float = float("-inf")
    message: str = ""
    runs: frozenset[str] = frozenset()

    @property
    def stuck(self) -> bool:
        """Whether the next command would not get through either."""
        return self.obstacle in (Obstacle.AWAY, Obstacle.REFUSING) or len(self.runs) >= STUCK_RUNS


def call_ended(delivery: Delivery, call: Call) -> Delivery:
    """The state after a call was answered, or ended without an answer."""
    answers = call.answers
    worst = answers[0] if len(answers) == 1 else max(answers, key=_rank)
    obstacle = _obstacle(worst)
    if obstacle is None:
        if worst.outcome is Outcome.LATE or call.began < delivery.answered:
            return delivery
        return Delivery(call.began) if call.began >= delivery.since else replace(delivery, answered=call.began)
    if obstacle is Obstacle.SILENT and call.began <= delivery.answered:
        return delivery
    met = {answer.simulation_id for answer in call.answers if _obstacle(answer) is obstacle}
    runs = frozenset(sorted(delivery.runs | met)[:STUCK_RUNS])
    # The message about an orchestrator that is away includes the address; the code would add nothing.
    message = worst.message if obstacle is Obstacle.AWAY and worst.message else f"{worst.code}: {worst.message}"
    since = max(delivery.since, call.began)
    return Delivery(delivery.answered, obstacle, since, text.single_line(message, MAX_MESSAGE), runs)


def event_received(delivery: Delivery) -> Delivery:
    """The state after an event of a run whose start is unanswered: commands arrive, so silence stops nothing."""
    return replace(delivery, runs=frozenset()) if delivery.obstacle is Obstacle.SILENT else delivery


def room(delivery: Delivery, room: int, unprobed_seconds: float) -> int:
    """How many runs may be claimed if there is room for `room`; the last were claimed `unprobed_seconds` ago."""
    if not delivery.stuck:
        return room
    return min(room, 1) if delivery.obstacle in _PROBED and unprobed_seconds >= PROBE_SECONDS else 0


def reason(delivery: Delivery, unanswered: Sequence[float]) -> str | None:
    """Why commands don't get through, for people; None if they do.

    `unanswered`: for each start without an answer, how many seconds it has waited.
    """
    if delivery.obstacle is None:
        return None
    if delivery.obstacle is Obstacle.SILENT:
        return f"the orchestrator is slow to answer: {waits(unanswered) or 'the last starts had no answer in time'}"
    return f"the orchestrator {_DESCRIPTIONS[delivery.obstacle]}: {delivery.message}"


def waits(unanswered: Sequence[float]) -> str | None:
    """How many starts have waited how long for an answer, in a text that changes rarely; None for short waits."""
    longest = max(unanswered, default=0.0)
    if longest < _STEP_SECONDS:
        return None
    duration = f"{longest // 60:.0f} min" if longest >= 60 else f"{longest // _STEP_SECONDS * _STEP_SECONDS:.0f} s"
    count = len(unanswered)
    return f"{count:,} {'start' if count == 1 else 'starts'} without an answer, the oldest for {duration}"


def _obstacle(answer: Answer) -> Obstacle | None:
    if answer.outcome is Outcome.SUBMITTED:
        return None
    if answer.outcome is Outcome.HALT:
        return Obstacle.REFUSING
    if answer.outcome is Outcome.SLOW_DOWN:
        return Obstacle.OVERLOADED
    if answer.code == "UNAVAILABLE":
        return Obstacle.AWAY
    return Obstacle.SILENT if answer.code == "DEADLINE_EXCEEDED" else None


def _rank(answer: Answer) -> int:
    obstacle = _obstacle(answer)
    return -1 if obstacle is None else _ORDER.index(obstacle)
