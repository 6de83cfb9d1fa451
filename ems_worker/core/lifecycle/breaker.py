"""A circuit breaker over the ends of runs: when most of the recent ones broke, no new run is started for a while.

M. Nygard, Release It!, 2007. Without it a broken cluster uses up the attempts of every job within minutes.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import StrEnum

from ems_worker.core.lifecycle import retry
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.transitions import RunState

# The breaker looks at this many recent ends, once there are at least MIN_ENDS. It opens when more than this fraction
# of them broke.
RECENT = 20
MIN_ENDS = 10
MAX_BROKEN = 0.5
FIRST_PAUSE_SECONDS = 15.0
MAX_PAUSE_SECONDS = 300.0
# Failures that are due to machines and connections, not to the simulation.
BROKEN_KINDS = frozenset({ErrorKind.INFRASTRUCTURE, ErrorKind.LOST})


class BreakerState(StrEnum):
    CLOSED = "closed"  # runs are started as usual
    OPEN = "open"  # no run is started until the pause is over
    PROBING = "probing"  # new runs are started one at a time, or one every few minutes, until one of them ends


@dataclass(frozen=True, slots=True)
class Breaker:
    """`recent`: whether each of the recent ends was a broken run, oldest first. `probes`: the runs that probe.

    `until`, in monotonic seconds: when open, the end of the pause; when probing, the time of the next probe if none of
    the present ones has ended by then.
    """

    state: BreakerState = BreakerState.CLOSED
    recent: tuple[bool, ...] = ()
    openings: int = 0
    until: float = 0.0
    probes: frozenset[Hashable] = frozenset()


def run_ended(breaker: Breaker, run: Hashable, state: RunState, kind: ErrorKind | None, *, now: float) -> Breaker:
    """The breaker after a run ended in this state, with this kind of error if any."""
    if breaker.state is BreakerState.OPEN:
        # A run from before the opening: its end is no news.
        return breaker
    if breaker.state is BreakerState.PROBING and run not in breaker.probes:
        return breaker
    if state is RunState.CANCELLED:
        # A cancellation shows nothing about the cluster. If it was the only probe, the next one may start.
        return replace(breaker, probes=breaker.probes - {run})
    broken = kind in BROKEN_KINDS
    if breaker.state is BreakerState.PROBING:
        return _open(breaker, now) if broken else Breaker()
    if not broken and len(breaker.recent) == RECENT and True not in breaker.recent:
        return breaker
    recent = (*breaker.recent, broken)[-RECENT:]
    after = replace(breaker, recent=recent)
    if len(recent) >= MIN_ENDS and sum(recent) > MAX_BROKEN * len(recent):
        return _open(after, now)
    return after


def at(breaker: Breaker, now: float) -> Breaker:
    """The breaker at this time: an open one begins to probe when its pause is over."""
    if breaker.state is BreakerState.OPEN and now >= breaker.until:
        return replace(breaker, state=BreakerState.PROBING)
    return breaker


def run_claimed(breaker: Breaker, run: Hashable, now: float) -> Breaker:
    """The breaker after a run was claimed: each run claimed while the breaker probes is a probe."""
    if breaker.state is BreakerState.PROBING:
        return replace(breaker, probes=breaker.probes | {run}, until=now + MAX_PAUSE_SECONDS)
    return breaker


def room(breaker: Breaker, room: int, now: float) -> int:
    """How many runs may be started if the window has room for `room`.

    A probe that is still running keeps others from starting only for a while, because a run may take days. Runs from
    before the opening don't count.
    """
    if breaker.state is BreakerState.CLOSED:
        return room
    if breaker.state is BreakerState.PROBING and (not breaker.probes or now >= breaker.until):
        return min(room, 1)
    return 0


def _open(breaker: Breaker, now: float) -> Breaker:
    openings = breaker.openings + 1
    pause = retry.pause_seconds(openings, "breaker", FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
    return Breaker(BreakerState.OPEN, (), openings, now + pause)
