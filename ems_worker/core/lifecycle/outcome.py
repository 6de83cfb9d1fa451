"""What the orchestrator's answer to a start call means, in one table of status codes."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from msgspec import Struct

from ems_worker.core.words import Word


class Outcome(Word):
    """What an answer means for the run."""

    SUBMITTED = "submitted"  # the orchestrator has the run
    REFUSED = "refused"  # the run can never be started: it fails, with the orchestrator's message
    SLOW_DOWN = "slow_down"  # overload: send it again later, and fewer at once
    HALT = "halt"  # no run can be submitted until an operator changes something: the worker is not ready
    UNKNOWN = "unknown"  # the command may or may not have arrived: send it again under the same id
    LATE = "late"  # no answer yet: others continue meanwhile, and the answer follows
    UNSENT = "unsent"  # no command was sent: when its turn came the run was not wanted any more


class Answer(Struct, frozen=True, gc=False):
    """The answer to one start command: what it means, the name of the gRPC code, and the orchestrator's message."""

    simulation_id: str
    outcome: Outcome
    code: str
    message: str = ""


class Call(Struct, frozen=True, gc=False):
    """The result of one start call, for one run or a batch of them. One with UNSENT answers was never made.

    `began` and `seconds` come from a monotonic clock: they can only be compared with those of other calls.
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
    """What a status code, by name, means for the run; a code that isn't in the table means UNKNOWN."""
    return OUTCOMES.get(code, Outcome.UNKNOWN)


# How gRPC servers report a message over their limit: C++, Python and Go; Java; Rust.
_SIZES = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        r"larger than max \((?P<size>\d{1,12}) vs\.? (?P<limit>\d{1,12})\)",
        r"exceeds maximum size (?P<limit>\d{1,12}): (?P<size>\d{1,12})(?!\d)",
        r"message length too large: found (?P<size>\d{1,12}) bytes, the limit is: (?P<limit>\d{1,12}) bytes",
    )
)
# How many characters of a message are searched for a size.
_MAX_SEARCHED = 1000


def message_limit(code: str, message: str, size: int) -> int | None:
    """The receiver's limit in bytes, if it refused a request of `size` bytes because of that size; else None.

    RESOURCE_EXHAUSTED means both overload and oversize, and Rust's servers return OUT_OF_RANGE for oversize. The
    refusal is about the size only if its message contains exactly this size and a limit below it: a full queue, too,
    "exceeds its maximum size".
    """
    if code not in ("RESOURCE_EXHAUSTED", "OUT_OF_RANGE"):
        return None
    for pattern in _SIZES:
        for match in pattern.finditer(message[:_MAX_SEARCHED]):
            limit = int(match["limit"])
            if int(match["size"]) == size and 0 < limit < size:
                return limit
    return None
