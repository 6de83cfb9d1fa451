"""What a check found."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Verdict(StrEnum):
    """Whether a part is well. `unknown`: it can't be checked from here, or not by this user, which is no fault."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of the doctor's: a part, whether it is well, what was seen, and what to do about it."""

    part: str
    verdict: Verdict
    seen: str
    remedy: str = ""

    def document(self) -> dict[str, Any]:
        return {"check": self.part, "verdict": self.verdict.value, "seen": self.seen, "remedy": self.remedy or None}


def ok(part: str, seen: str) -> Finding:
    return Finding(part, Verdict.OK, seen)


def warning(part: str, seen: str, remedy: str) -> Finding:
    return Finding(part, Verdict.WARN, seen, remedy)


def failure(part: str, seen: str, remedy: str) -> Finding:
    return Finding(part, Verdict.FAIL, seen, remedy)


def unknown(part: str, seen: str) -> Finding:
    return Finding(part, Verdict.UNKNOWN, seen)
