"""The states of a run, the events that reach it, and what each event does in each state.

TRANSITIONS is the whole rule; `docs/state-machine.md` is generated from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from ems_worker.core.words import Word


class RunState(Word):
    """Beside each state: what moves a run on from it, and what a crash means there."""

    PENDING = "pending"  # Dispatch claims it. A crash loses nothing: no command was sent.
    SUBMITTING = "submitting"  # The reply to the start call, or an event. After a crash it is sent again, same id.
    SUBMITTED = "submitted"  # Events, or the time limit. The orchestrator has it; a crash changes nothing.
    RUNNING = "running"  # Events, or the time limit.
    COMPLETED = "completed"  # Nothing.
    FAILED = "failed"  # Nothing.
    CANCELLED = "cancelled"  # Nothing.
    LOST = "lost"  # A late event that ends it.


class RunEvent(Word):
    """What happens to a run, according to dispatch, the orchestrator's replies, or its events."""

    CLAIM = "claim"  # dispatch is about to submit it
    ACCEPT = "accept"  # the start call returned OK or ALREADY_EXISTS
    REFUSE = "refuse"  # the start call returned an error that no retry can change
    START = "start"  # sim.run_started
    COMPLETE = "complete"  # sim.run_completed
    FAIL = "fail"  # sim.run_failed
    LOSE = "lose"  # the time limit passed and no end was confirmed
    CANCEL = "cancel"  # its result is no longer wanted, and it was never submitted or its STOP was confirmed
    MEASURE = "measure"  # sim.run_metrics: metrics that were computed after the run, or the progress of an open one
    EXPIRE = "expire"  # metrics that its job waits for did not arrive in time
    AWAIT = "await"  # its job waits for them once more


class Effect(Word):
    """What an event does to a run in its present state."""

    APPLY = "apply"  # moves it to another state
    NOTE = "note"  # adds information and leaves the state
    DUPLICATE = "duplicate"  # nothing: the event repeats what is known
    LATE = "late"  # nothing: another event has overtaken it
    CONTRADICTION = "contradiction"  # nothing: it disagrees with the recorded end, and becomes a dead letter
    EXCESS = "excess"  # nothing: the run has too many metrics already, and it becomes a dead letter


@dataclass(frozen=True, slots=True)
class Transition:
    effect: Effect
    to: RunState | None = None


TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.LOST})
# States in the run window: a command was or is being sent, and the run is not known to have ended.
OPEN = frozenset({RunState.SUBMITTING, RunState.SUBMITTED, RunState.RUNNING})
# Effects that change what is recorded of a run.
CHANGING = frozenset({Effect.APPLY, Effect.NOTE})


def _to(state: RunState) -> Transition:
    return Transition(Effect.APPLY, state)


_DUPLICATE = Transition(Effect.DUPLICATE)
_LATE = Transition(Effect.LATE)
_CONTRADICTION = Transition(Effect.CONTRADICTION)
_NOTE = Transition(Effect.NOTE)

_S, _E = RunState, RunEvent
TRANSITIONS: Mapping[tuple[RunState, RunEvent], Transition] = MappingProxyType(
    {
        (_S.PENDING, _E.CLAIM): _to(_S.SUBMITTING),
        (_S.PENDING, _E.ACCEPT): _LATE,
        (_S.PENDING, _E.REFUSE): _LATE,
        # A pending run has events after the manifest was restored from a backup older than the run.
        (_S.PENDING, _E.START): _to(_S.RUNNING),
        (_S.PENDING, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.PENDING, _E.FAIL): _to(_S.FAILED),
        (_S.PENDING, _E.LOSE): _LATE,
        (_S.PENDING, _E.CANCEL): _to(_S.CANCELLED),
        # Metrics may arrive before the events of their run.
        (_S.PENDING, _E.MEASURE): _NOTE,
        (_S.PENDING, _E.EXPIRE): _LATE,
        (_S.PENDING, _E.AWAIT): _LATE,
        (_S.SUBMITTING, _E.CLAIM): _DUPLICATE,
        (_S.SUBMITTING, _E.ACCEPT): _to(_S.SUBMITTED),
        (_S.SUBMITTING, _E.REFUSE): _to(_S.FAILED),
        (_S.SUBMITTING, _E.START): _to(_S.RUNNING),
        (_S.SUBMITTING, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.SUBMITTING, _E.FAIL): _to(_S.FAILED),
        (_S.SUBMITTING, _E.LOSE): _to(_S.LOST),
        (_S.SUBMITTING, _E.CANCEL): _to(_S.CANCELLED),
        (_S.SUBMITTING, _E.MEASURE): _NOTE,
        (_S.SUBMITTING, _E.EXPIRE): _LATE,
        (_S.SUBMITTING, _E.AWAIT): _LATE,
        (_S.SUBMITTED, _E.CLAIM): _LATE,
        (_S.SUBMITTED, _E.ACCEPT): _DUPLICATE,
        # Only if it was sent again to an orchestrator that had lost it.
        (_S.SUBMITTED, _E.REFUSE): _to(_S.FAILED),
        (_S.SUBMITTED, _E.START): _to(_S.RUNNING),
        (_S.SUBMITTED, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.SUBMITTED, _E.FAIL): _to(_S.FAILED),
        (_S.SUBMITTED, _E.LOSE): _to(_S.LOST),
        (_S.SUBMITTED, _E.CANCEL): _to(_S.CANCELLED),
        (_S.SUBMITTED, _E.MEASURE): _NOTE,
        (_S.SUBMITTED, _E.EXPIRE): _LATE,
        (_S.SUBMITTED, _E.AWAIT): _LATE,
        (_S.RUNNING, _E.CLAIM): _LATE,
        (_S.RUNNING, _E.ACCEPT): _LATE,
        (_S.RUNNING, _E.REFUSE): _CONTRADICTION,
        # News only if the run was sent again, see `run.forgotten`.
        (_S.RUNNING, _E.START): _NOTE,
        (_S.RUNNING, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.RUNNING, _E.FAIL): _to(_S.FAILED),
        (_S.RUNNING, _E.LOSE): _to(_S.LOST),
        (_S.RUNNING, _E.CANCEL): _to(_S.CANCELLED),
        (_S.RUNNING, _E.MEASURE): _NOTE,
        (_S.RUNNING, _E.EXPIRE): _LATE,
        (_S.RUNNING, _E.AWAIT): _LATE,
        (_S.COMPLETED, _E.CLAIM): _LATE,
        (_S.COMPLETED, _E.ACCEPT): _LATE,
        (_S.COMPLETED, _E.REFUSE): _CONTRADICTION,
        (_S.COMPLETED, _E.START): _LATE,
        (_S.COMPLETED, _E.COMPLETE): _DUPLICATE,
        (_S.COMPLETED, _E.FAIL): _CONTRADICTION,
        (_S.COMPLETED, _E.LOSE): _LATE,
        (_S.COMPLETED, _E.CANCEL): _LATE,
        (_S.COMPLETED, _E.MEASURE): _NOTE,
        (_S.COMPLETED, _E.EXPIRE): _NOTE,
        (_S.COMPLETED, _E.AWAIT): _NOTE,
        (_S.FAILED, _E.CLAIM): _LATE,
        (_S.FAILED, _E.ACCEPT): _LATE,
        (_S.FAILED, _E.REFUSE): _DUPLICATE,
        (_S.FAILED, _E.START): _LATE,
        (_S.FAILED, _E.COMPLETE): _CONTRADICTION,
        (_S.FAILED, _E.FAIL): _DUPLICATE,
        (_S.FAILED, _E.LOSE): _LATE,
        (_S.FAILED, _E.CANCEL): _LATE,
        (_S.FAILED, _E.MEASURE): _LATE,
        (_S.FAILED, _E.EXPIRE): _LATE,
        (_S.FAILED, _E.AWAIT): _LATE,
        (_S.CANCELLED, _E.CLAIM): _LATE,
        (_S.CANCELLED, _E.ACCEPT): _LATE,
        (_S.CANCELLED, _E.REFUSE): _LATE,
        (_S.CANCELLED, _E.START): _LATE,
        (_S.CANCELLED, _E.COMPLETE): _CONTRADICTION,
        # This confirms the STOP that was sent when the run was cancelled.
        (_S.CANCELLED, _E.FAIL): _LATE,
        (_S.CANCELLED, _E.LOSE): _LATE,
        (_S.CANCELLED, _E.CANCEL): _DUPLICATE,
        (_S.CANCELLED, _E.MEASURE): _LATE,
        (_S.CANCELLED, _E.EXPIRE): _LATE,
        (_S.CANCELLED, _E.AWAIT): _LATE,
        (_S.LOST, _E.CLAIM): _LATE,
        (_S.LOST, _E.ACCEPT): _LATE,
        (_S.LOST, _E.REFUSE): _LATE,
        (_S.LOST, _E.START): _LATE,
        (_S.LOST, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.LOST, _E.FAIL): _to(_S.FAILED),
        (_S.LOST, _E.LOSE): _DUPLICATE,
        (_S.LOST, _E.CANCEL): _LATE,
        (_S.LOST, _E.MEASURE): _NOTE,
        (_S.LOST, _E.EXPIRE): _LATE,
        (_S.LOST, _E.AWAIT): _LATE,
    }
)
