"""How many gRPC calls may be open at once: more after good answers, half as many at overload.

Additive increase, multiplicative decrease: D.-M. Chiu, R. Jain, Computer Networks and ISDN Systems 17, 1989. There are
two signs of overload: the orchestrator reports it, or most calls take much longer than before. If halving the window
doesn't make calls faster, their number isn't the cause, and the window grows again.
"""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace

OVERLOAD_FACTOR = 0.5
# A call is slow if it takes this many times the best time of its kind, and at least this long.
SLOW_TIMES = 8.0
SLOW_SECONDS = 0.25
# The best time grows by this factor with each answer, because an orchestrator may become slower for good.
BEST_GROWTH = 1.002
# The window shrinks when more than half of this many recent calls of a kind were slow: one call that hangs is no sign
# of overload.
RECENT = 8
# An overloaded orchestrator that gets half as many calls answers each in less than this fraction of the time.
FASTER = 0.75
# How long a call may take before others continue in its place: at least MIN_PATIENCE_SECONDS. The other value applies
# until a call of its kind was answered.
MIN_PATIENCE_SECONDS = 0.5
UNKNOWN_PATIENCE_SECONDS = 2.5


class Kind(Struct, frozen=True, gc=False):
    """What is known about one kind of call.

    `best`: the best recent time in seconds; None if no call was answered yet. `slow`: whether each of the recent calls
    was slow. `shrunk_for`: the seconds of the call after which the window last shrank because of slow calls.
    """

    best: float | None = None
    slow: tuple[bool, ...] = ()
    shrunk_for: float | None = None


class CallWindow(Struct, frozen=True, gc=False):
    """`size` calls at once, between 1 and `max_calls`."""

    max_calls: int
    size: float
    kinds: Mapping[str, Kind] = {}

    @property
    def calls(self) -> int:
        return max(1, int(self.size))


def full(max_calls: int) -> CallWindow:
    """The window at its largest, where it starts."""
    return CallWindow(max_calls, float(max_calls))


def answered(window: CallWindow, kind: str, seconds: float, fresh: bool = True) -> CallWindow:
    """The window after a good answer to a call of this kind. `fresh`: the call began after the window last shrank."""
    known = window.kinds.get(kind, Kind())
    best = seconds if known.best is None else min(seconds, known.best * BEST_GROWTH)
    if seconds > max(SLOW_TIMES * best, SLOW_SECONDS):
        return _slow(window, kind, replace(known, best=best), seconds=seconds, fresh=fresh)
    grown = min(float(window.max_calls), window.size + 1.0 / window.size)
    return _with(window, kind, Kind(best, (*known.slow, False)[-RECENT:]), grown)


def unanswered(window: CallWindow, kind: str, seconds: float, fresh: bool = True) -> CallWindow:
    """The window after a call of this kind that got no answer within these seconds."""
    return _slow(window, kind, window.kinds.get(kind, Kind()), seconds=seconds, fresh=fresh)


def overloaded(window: CallWindow) -> CallWindow:
    """The window after RESOURCE_EXHAUSTED."""
    return replace(window, size=max(1.0, window.size * OVERLOAD_FACTOR))


def patience_seconds(window: CallWindow, kind: str, max_seconds: float) -> float:
    """How long a call of this kind may take before others continue in its place."""
    best = window.kinds.get(kind, Kind()).best
    usual = UNKNOWN_PATIENCE_SECONDS if best is None else max(MIN_PATIENCE_SECONDS, SLOW_TIMES * best)
    return min(max_seconds, usual)


def _slow(window: CallWindow, kind: str, known: Kind, *, seconds: float, fresh: bool) -> CallWindow:
    slow = (*known.slow, True)[-RECENT:]
    if not fresh or sum(slow) <= RECENT // 2:
        return _with(window, kind, replace(known, slow=slow), window.size)
    if known.shrunk_for is not None and seconds > FASTER * known.shrunk_for:
        # The smaller window didn't help: this is how long calls take now.
        return _with(window, kind, Kind(max(seconds, known.best or 0.0), (), seconds), window.size)
    return _with(window, kind, Kind(known.best, (), seconds), max(1.0, window.size * OVERLOAD_FACTOR))


def _with(window: CallWindow, kind: str, known: Kind, size: float) -> CallWindow:
    return CallWindow(window.max_calls, size, {**window.kinds, kind: known})
