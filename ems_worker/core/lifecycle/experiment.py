"""An experiment: its states, and how it stands."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ems_worker.core.words import Word


class ExperimentState(Word):
    """Beside each state: what moves an experiment on from it, and what a crash means there."""

    ACCEPTED = "accepted"  # Its first recorded jobs. After a crash expansion continues where it stopped.
    RUNNING = "running"  # The end of its last job, unless it is kept open; then `close`.
    PAUSED = "paused"  # `resume`, when nobody else pauses it; `cancel`; the end of its last job. It expands meanwhile.
    COMPLETED = "completed"  # Only a new round.
    FAILED = "failed"  # Only a new round.
    CANCELLED = "cancelled"  # Only a new round.


ENDED = frozenset({ExperimentState.COMPLETED, ExperimentState.FAILED, ExperimentState.CANCELLED})


class PauseOwner(Word):
    """Who pauses an experiment. Its jobs start only while nobody does."""

    PERSON = "person"  # `pause`
    HOLD = "hold"  # the plan says `hold: true`
    CANARY = "canary"  # the first jobs are to be looked at
    BUDGET = "budget"  # what the plan allows is used up; `set` raises it
    RESTORED = "restored"  # its manifest was restored, and changes of it may be missing


class CancelMode(Word):
    """What happens to the open runs of an experiment that is cancelled."""

    STOP = "stop"  # they are stopped
    DRAIN = "drain"  # they may end


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides about an experiment's changes, and what they change.

    `pause_now`: its open runs are paused too, where the orchestrator can do that. `cancel`: the whole experiment was
    cancelled in this round. `kept_open`: it doesn't end before `close`.
    """

    state: ExperimentState
    round: int = 1
    pauses: frozenset[PauseOwner] = frozenset()
    pause_now: bool = False
    cancel: CancelMode | None = None
    kept_open: bool = False


class ExperimentEvent(Word):
    BEGIN = "begin"  # its first jobs are in the manifest
    PAUSE = "pause"  # somebody begins to pause it: no more of its runs are to be started
    RESUME = "resume"  # nobody pauses it any more: its runs may be started again
    CANCEL = "cancel"  # the whole experiment is cancelled: every pause ends, and its jobs are on their way out
    SUCCEED = "succeed"  # every job ended, and nothing in them makes the experiment a failure
    MISS = "miss"  # every job ended: more failed than allowed, some were dropped because of that, or none completed
    ABANDON = "abandon"  # every job ended after the whole experiment was cancelled
    REOPEN = "reopen"  # an ended experiment is retried or extended: a new round


_S, _E = ExperimentState, ExperimentEvent
_ENDS: Mapping[ExperimentEvent, ExperimentState] = MappingProxyType(
    {_E.SUCCEED: _S.COMPLETED, _E.MISS: _S.FAILED, _E.ABANDON: _S.CANCELLED}
)
# None: the event has no effect in that state.
TRANSITIONS: Mapping[tuple[ExperimentState, ExperimentEvent], ExperimentState | None] = MappingProxyType(
    {
        (_S.ACCEPTED, _E.BEGIN): _S.RUNNING,
        # A paused experiment continues to expand, and starts no runs.
        (_S.ACCEPTED, _E.PAUSE): _S.PAUSED,
        (_S.ACCEPTED, _E.RESUME): None,
        (_S.ACCEPTED, _E.CANCEL): None,
        (_S.ACCEPTED, _E.REOPEN): None,
        (_S.RUNNING, _E.BEGIN): None,
        (_S.RUNNING, _E.PAUSE): _S.PAUSED,
        (_S.RUNNING, _E.RESUME): None,
        (_S.RUNNING, _E.CANCEL): None,
        (_S.RUNNING, _E.REOPEN): None,
        (_S.PAUSED, _E.BEGIN): None,
        (_S.PAUSED, _E.PAUSE): None,
        (_S.PAUSED, _E.RESUME): _S.RUNNING,
        (_S.PAUSED, _E.CANCEL): _S.RUNNING,
        (_S.PAUSED, _E.REOPEN): None,
        # Also an accepted experiment ends: its jobs may be cancelled before it has begun.
        **{(state, event): to for state in (_S.ACCEPTED, _S.RUNNING, _S.PAUSED) for event, to in _ENDS.items()},
        **{(state, event): _S.RUNNING if event is _E.REOPEN else None for state in ENDED for event in _E},
    }
)
