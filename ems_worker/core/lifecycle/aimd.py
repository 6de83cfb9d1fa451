"""How many gRPC calls may be open at once: one more for each window of good answers, half at overload.

Additive increase, multiplicative decrease: D.-M. Chiu, R. Jain, Computer Networks and ISDN Systems 17, 1989. Overload
is what the orchestrator calls so, and most calls taking much longer than they did. If they take no less long with half
as many open at once, their number isn't the cause, and it grows again.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

OVERLOAD_FACTOR = 0.5
# An answer is slow when it takes so many times the best of its kind, and at least this long.
SLOW_TIMES = 8.0
SLOW_SECONDS = 0.25
# The best time is forgotten little by little: an orchestrator may become slower for good.
FORGETTING = 1.002
# How many calls of a kind are looked at, more than half of which have to be slow: one that hangs is no overload.
RECENT = 8
# With half the calls open, an overloaded orchestrator takes less than this part of the time.
FASTER = 0.75
# A call is set aside not before this time; and after that one, where none of its kind was answered yet.
LEAST_PATIENCE_SECONDS = 0.5
UNKNOWN_PATIENCE_SECONDS = 2.5


@dataclass(frozen=True, slots=True)
class Kind:
    """What is known of one kind of call: the best recent seconds (None: none was answered yet), whether each of the
    last was slow, and how long they took when the window shrank because they were slow."""

    best: float | None = None
    slow: tuple[bool, ...] = ()
    shrunk_for: float | None = None


@dataclass(frozen=True, slots=True)
class CallWindow:
    """`size` calls at once, between 1 and `most`."""

    most: int
    size: float
    kinds: Mapping[str, Kind] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return max(1, int(self.size))


def full(most: int) -> CallWindow:
    """The window at its largest, where it starts."""
    return CallWindow(most, float(most))


def answered(window: CallWindow, kind: str, seconds: float, fresh: bool = True) -> CallWindow:
    """After a good answer to a call of this kind. `fresh`: it began after the window last shrank."""
    known = window.kinds.get(kind, Kind())
    best = seconds if known.best is None else min(seconds, known.best * FORGETTING)
    if seconds > max(SLOW_TIMES * best, SLOW_SECONDS):
        return _slow(window, kind, replace(known, best=best), seconds, fresh)
    grown = min(float(window.most), window.size + 1.0 / window.size)
    return _with(window, kind, Kind(best, (*known.slow, False)[-RECENT:]), grown)


def unanswered(window: CallWindow, kind: str, seconds: float, fresh: bool = True) -> CallWindow:
    """After a call of this kind that had no answer within these seconds."""
    return _slow(window, kind, window.kinds.get(kind, Kind()), seconds, fresh)


def overloaded(window: CallWindow) -> CallWindow:
    """After RESOURCE_EXHAUSTED."""
    return replace(window, size=max(1.0, window.size * OVERLOAD_FACTOR))


def patience_seconds(window: CallWindow, kind: str, longest: float) -> float:
    """How long a call of this kind may take before others go on in its place."""
    best = window.kinds.get(kind, Kind()).best
    usual = UNKNOWN_PATIENCE_SECONDS if best is None else max(LEAST_PATIENCE_SECONDS, SLOW_TIMES * best)
    return min(longest, usual)


def _slow(window: CallWindow, kind: str, known: Kind, seconds: float, fresh: bool) -> CallWindow:
    slow = (*known.slow, True)[-RECENT:]
    if not fresh or sum(slow) <= RECENT // 2:
        return _with(window, kind, replace(known, slow=slow), window.size)
    if known.shrunk_for is not None and seconds > FASTER * known.shrunk_for:
        return _with(window, kind, Kind(max(seconds, known.best or 0.0), (), seconds), window.size)
    return _with(window, kind, Kind(known.best, (), seconds), max(1.0, window.size * OVERLOAD_FACTOR))


def _with(window: CallWindow, kind: str, known: Kind, size: float) -> CallWindow:
    return CallWindow(window.most, size, {**window.kinds, kind: known})
