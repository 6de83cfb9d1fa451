"""What the orchestrator's answer to a start call means: the one table of status codes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Outcome(StrEnum):
    SUBMITTED = "submitted"  # the orchestrator has the run
    REFUSED = "refused"  # the run can never be started: it failed, with the orchestrator's words
    SLOW_DOWN = "slow_down"  # overload: send again later, and fewer at once
    HALT = "halt"  # nothing can be submitted until an operator changes something: not ready
    UNKNOWN = "unknown"  # it may or may not have arrived: send again with the same id


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one start command: what it means, the gRPC code's name, and the orchestrator's words."""

    simulation_id: str
    outcome: Outcome
    code: str
    message: str = ""


# By the canonical names of gRPC status codes.
OUTCOMES: Mapping[str, Outcome] = MappingProxyType(
    {
        "OK": Outcome.SUBMITTED,
        "ALREADY_EXISTS": Outcome.SUBMITTED,
        "INVALID_ARGUMENT": Outcome.REFUSED,
        "FAILED_PRECONDITION": Outcome.REFUSED,
        "OUT_OF_RANGE": Outcome.REFUSED,
        "RESOURCE_EXHAUSTED": Outcome.SLOW_DOWN,
        "UNAUTHENTICATED": Outcome.HALT,
        "PERMISSION_DENIED": Outcome.HALT,
        "UNIMPLEMENTED": Outcome.HALT,
    }
)


def outcome(code: str) -> Outcome:
    """What a status code's name means for the run that was to be started; all that isn't in the table is UNKNOWN."""
    return OUTCOMES.get(code, Outcome.UNKNOWN)
