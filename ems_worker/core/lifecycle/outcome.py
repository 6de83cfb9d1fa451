"""What the orchestrator's answer to a start call means: the one table of status codes."""

import re
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
    LATE = "late"  # no answer yet: others go on meanwhile, and the answer follows


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one start command: what it means, the gRPC code's name, and the orchestrator's words."""

    simulation_id: str
    outcome: Outcome
    code: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    """What became of one start call, of one run or of a batch.

    `began` and `seconds` are on one monotonic clock, which only compares calls with each other.
    """

    began: float
    seconds: float
    answers: tuple[Answer, ...]


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


# A message over the receiver's limit, as gRPC's servers say it: C++, Python and Go; Java; Rust.
_SIZES = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"larger than max \((?P<size>\d{1,12}) vs\.? (?P<limit>\d{1,12})\)",
        r"exceeds maximum size (?P<limit>\d{1,12}): (?P<size>\d{1,12})(?!\d)",
        r"message length too large: found (?P<size>\d{1,12}) bytes, the limit is: (?P<limit>\d{1,12}) bytes",
    )
)
# Where in the words a size is looked for, in characters.
_LOOKED_AT = 1000


def message_limit(code: str, words: str, size: int) -> int | None:
    """The receiver's limit, in bytes, if this refusal of a request of `size` bytes is about its size.

    RESOURCE_EXHAUSTED is both overload and oversize, and Rust's servers say OUT_OF_RANGE. It is about the size only if
    it names exactly ours, and a limit below it: a full queue "exceeds its maximum size" too.
    """
    if code not in ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE"):
        return None
    for pattern in _SIZES:
        for found in pattern.finditer(words[:_LOOKED_AT]):
            limit = int(found["limit"])
            if int(found["size"]) == size and 0 < limit < size:
                return limit
    return None
