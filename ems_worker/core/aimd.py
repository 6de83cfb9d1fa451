"""How many gRPC calls may be open at once: one more for each window of good answers, half at overload.

Additive increase, multiplicative decrease: D.-M. Chiu, R. Jain, Computer Networks and ISDN Systems 17, 1989.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

OVERLOAD_FACTOR = 0.5
SLOW_FACTOR = 0.9
# An answer is slow when it takes so many times the best of its kind, and at least this long.
SLOW_TIMES = 8.0
SLOW_SECONDS = 0.25
# The best time is forgotten little by little: an orchestrator may become slower for good.
FORGETTING = 1.002


@dataclass(frozen=True, slots=True)
class CallWindow:
    """`size` calls at once, between 1 and `most`; `best` has the best recent seconds of each kind of call."""

    most: int
    size: float
    best: Mapping[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return max(1, int(self.size))


def full(most: int) -> CallWindow:
    """The window at its largest, where it starts."""
    return CallWindow(most, float(most))


def answered(window: CallWindow, kind: str, seconds: float) -> CallWindow:
    """After a good answer to a call of this kind."""
    best = min(seconds, window.best.get(kind, seconds) * FORGETTING)
    after = replace(window, best={**window.best, kind: best})
    if seconds > max(SLOW_TIMES * best, SLOW_SECONDS):
        return replace(after, size=max(1.0, window.size * SLOW_FACTOR))
    return replace(after, size=min(float(window.most), window.size + 1.0 / window.size))


def overloaded(window: CallWindow) -> CallWindow:
    """After RESOURCE_EXHAUSTED, or no answer within the deadline."""
    return replace(window, size=max(1.0, window.size * OVERLOAD_FACTOR))
