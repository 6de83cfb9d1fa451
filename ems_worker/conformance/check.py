"""One thing that is checked, and how that went."""

import enum
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from ems_worker import errors

Subject = TypeVar("Subject")
Body = Callable[[Subject], Awaitable[None]]


class Failed(errors.EmsError):
    """What was checked does not hold; the text says what was expected and what came."""


class Skipped(errors.EmsError):
    """It could not be checked; the text says why, and what would make it possible."""


class Outcome(enum.StrEnum):
    """How a check went."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Check(Generic[Subject]):
    """`meaning` is what holds where it passes. Where a `vital` one fails, those after it would only say so again."""

    name: str
    meaning: str
    body: Body[Subject]
    vital: bool = False


@dataclass(frozen=True, slots=True)
class Result:
    """A check's outcome; `words` say why it failed or was skipped."""

    name: str
    meaning: str
    outcome: Outcome
    words: str
    seconds: float


def of(name: str, body: Body[Subject], *, vital: bool = False) -> Check[Subject]:
    """A check whose meaning is its body's docstring."""
    return Check(name, " ".join((body.__doc__ or "").split()).rstrip("."), body, vital)


def selected(checks: Sequence[Check[Subject]], only: frozenset[str]) -> list[Check[Subject]]:
    """Those that are named; all where none is."""
    return [one for one in checks if not only or one.name in only]


def require(holds: object, words: str) -> None:
    """Raises Failed with these words where it does not hold."""
    if not holds:
        raise Failed(words)


async def run(checks: Sequence[Check[Subject]], subject: Subject) -> AsyncIterator[Result]:
    """Runs the checks one after the other, and tells of each as it ends."""
    hopeless = ""
    for one in checks:
        began = time.monotonic()
        outcome, words = Outcome.PASSED, ""
        try:
            if hopeless:
                raise Skipped(f"{hopeless} failed")
            await one.body(subject)
        except Skipped as skipped:
            outcome, words = Outcome.SKIPPED, str(skipped)
        except Failed as failed:
            outcome, words = Outcome.FAILED, str(failed)
            hopeless = one.name if one.vital else hopeless
        yield Result(one.name, one.meaning, outcome, words, time.monotonic() - began)
