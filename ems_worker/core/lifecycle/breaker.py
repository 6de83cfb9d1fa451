"""A circuit breaker over the ends of runs: when most of the last ones broke, nothing new is started for a while.

M. Nygard, Release It!, 2007. Without it a sick cluster eats the attempts of every job within minutes.
"""

from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import StrEnum

from ems_worker.core.lifecycle import retry
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.transitions import RunState

# How many ends are looked at, how many of them there must be at least, and which part of them may have broken.
RECENT = 20
LEAST = 10
MOST_BROKEN = 0.5
FIRST_PAUSE_SECONDS = 15.0
LONGEST_PAUSE_SECONDS = 300.0
# Failures that say something about machines and connections, not about the simulation.
BROKEN_KINDS = frozenset({ErrorKind.INFRASTRUCTURE, ErrorKind.LOST})


class BreakerState(StrEnum):
    CLOSED = "closed"  # all goes its way
    OPEN = "open"  # nothing is started until the pause is over
    PROBING = "probing"  # one new run at a time, or every some minutes, until one ends


@dataclass(frozen=True, slots=True)
class Breaker:
    """`recent`: whether each of the last ends was a broken one, oldest first. `probes`: the runs that probe.

    `until`, in monotonic seconds: when open, the end of the pause; when probing, when the next probe may go though none
    of these has ended.
    """

    state: BreakerState = BreakerState.CLOSED
    recent: tuple[bool, ...] = ()
    openings: int = 0
    until: float = 0.0
    probes: frozenset[Hashable] = frozenset()


def heard(breaker: Breaker, run: Hashable, state: RunState, kind: ErrorKind | None, now: float) -> Breaker:
    """After the end of a run in this state, with this kind of error (None: none)."""
    if breaker.state is BreakerState.OPEN:
        # Runs from before the opening end now: they say nothing new.
        return breaker
    if breaker.state is BreakerState.PROBING and run not in breaker.probes:
        return breaker
    if state is RunState.CANCELLED:
        # Whoever cancelled it, it says nothing; if it was the only probe, the next one may go.
        return replace(breaker, probes=breaker.probes - {run})
    broken = kind in BROKEN_KINDS
    if breaker.state is BreakerState.PROBING:
        return _open(breaker, now) if broken else Breaker()
    recent = (*breaker.recent, broken)[-RECENT:]
    after = replace(breaker, recent=recent)
    if len(recent) >= LEAST and sum(recent) > MOST_BROKEN * len(recent):
        return _open(after, now)
    return after


def turned(breaker: Breaker, now: float) -> Breaker:
    """At a moment: an open breaker whose pause is over begins to probe."""
    if breaker.state is BreakerState.OPEN and now >= breaker.until:
        return replace(breaker, state=BreakerState.PROBING)
    return breaker


def claimed(breaker: Breaker, run: Hashable, now: float) -> Breaker:
    """After a run was claimed to be started: what is claimed while the breaker probes is a probe."""
    if breaker.state is BreakerState.PROBING:
        return replace(breaker, probes=breaker.probes | {run}, until=now + LONGEST_PAUSE_SECONDS)
    return breaker


def room(breaker: Breaker, room: int, now: float) -> int:
    """How many runs may be started of those that the window has room for.

    Runs that are open from before don't count, and a probe that goes on does only for a while: it may do so for days.
    """
    if breaker.state is BreakerState.CLOSED:
        return room
    if breaker.state is BreakerState.PROBING and (not breaker.probes or now >= breaker.until):
        return min(room, 1)
    return 0


def _open(breaker: Breaker, now: float) -> Breaker:
    openings = breaker.openings + 1
    pause = retry.pause_seconds(openings, "breaker", FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS)
    return Breaker(BreakerState.OPEN, (), openings, now + pause)
