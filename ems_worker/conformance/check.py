"""A check, its run and its result."""

import enum
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ems_worker import errors

# How long a run, and everything else that a check waits for, may take unless configured.
TIMEOUT_SECONDS = 60.0

Target = TypeVar("Target")
Body = Callable[[Target], Awaitable[None]]


class Failed(errors.EmsError):
    """The checked property does not hold; the message has the expected and the actual result."""


class Skipped(errors.EmsError):
    """The property can't be checked; the message says why, and what would make it possible."""


class CheckResult(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check(Generic[Target]):
    """`meaning` is the property that holds if the check passes. If a `vital` check fails, later checks are skipped."""

    name: str
    meaning: str
    body: Body[Target]
    vital: bool = False


@dataclass(frozen=True, slots=True)
class FinishedCheck:
    """A check that has ended; `message` says why it failed or was skipped."""

    name: str
    meaning: str
    result: CheckResult
    message: str
    seconds: float


def of(name: str, body: Body[Target], *, vital: bool = False) -> Check[Target]:
    """A check whose meaning is the docstring of its body."""
    return Check(name, " ".join((body.__doc__ or "").split()).rstrip("."), body, vital)


def selected(checks: Sequence[Check[Target]], only: frozenset[str]) -> list[Check[Target]]:
    """The checks with these names, or all checks if there are no names."""
    return [check for check in checks if not only or check.name in only]


def require(holds: object, message: str) -> None:
    """Raises Failed with this message unless the condition holds."""
    if not holds:
        raise Failed(message)


async def run(checks: Sequence[Check[Target]], target: Target) -> AsyncIterator[FinishedCheck]:
    """Runs the checks one after the other, and yields each as it ends."""
    failed_vital = ""
    for check in checks:
        began = time.monotonic()
        result, message = CheckResult.PASSED, ""
        try:
            if failed_vital:
                raise Skipped(f"{failed_vital} failed")
            await check.body(target)
        except Skipped as skipped:
            result, message = CheckResult.SKIPPED, str(skipped)
        except Failed as failed:
            result, message = CheckResult.FAILED, str(failed)
            failed_vital = check.name if check.vital else failed_vital
        yield FinishedCheck(check.name, check.meaning, result, message, time.monotonic() - began)
