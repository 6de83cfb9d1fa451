"""One attempt at a job: its states, what moves it between them, and what every other event means.

The whole rule is TRANSITIONS; `docs/state-machine.md` is generated from it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace as _replace
from enum import StrEnum
from types import MappingProxyType


class RunState(StrEnum):
    """Beside each state: who moves it on, and what a crash there means."""

    PENDING = "pending"  # dispatch claims it. A crash loses nothing: it was never announced.
    SUBMITTING = "submitting"  # the start call's reply, or an event. After a crash it is sent again under the same id.
    SUBMITTED = "submitted"  # events, or the time limit. The orchestrator has it; a crash here changes nothing.
    RUNNING = "running"  # events, or the time limit.
    COMPLETED = "completed"  # nobody.
    FAILED = "failed"  # nobody.
    CANCELLED = "cancelled"  # nobody.
    LOST = "lost"  # a late terminal event: its end is then known after all.


class RunEvent(StrEnum):
    """What can be heard of a run, from our own dispatch, the orchestrator's replies, or its events."""

    CLAIM = "claim"  # dispatch is about to submit it
    ACCEPT = "accept"  # the start call answered OK or ALREADY_EXISTS
    REFUSE = "refuse"  # the start call answered that this run can never be started
    START = "start"  # sim.run_started
    COMPLETE = "complete"  # sim.run_completed
    FAIL = "fail"  # sim.run_failed
    LOSE = "lose"  # the time limit passed and nobody confirmed an end
    CANCEL = "cancel"  # its work is no longer wanted, and it was never announced or its STOP was confirmed
    MEASURE = "measure"  # sim.run_metrics: metrics that were computed after the run
    EXPIRE = "expire"  # metrics that its job waits for did not come in time
    AWAIT = "await"  # they are waited for once more


class Verdict(StrEnum):
    """What an event means for a run in its present state."""

    APPLY = "apply"  # the run moves to another state
    NOTE = "note"  # the run stays in its state; what is known of it is added to
    DUPLICATE = "duplicate"  # says again what is already so
    LATE = "late"  # was overtaken by another event; nothing to do
    CONTRADICTION = "contradiction"  # disagrees with what stands: recorded and counted, changes nothing
    EXCESS = "excess"  # brings more metrics than are kept of one run: put aside and counted, changes nothing


@dataclass(frozen=True, slots=True)
class Transition:
    verdict: Verdict
    to: RunState | None = None


TERMINAL = frozenset({RunState.COMPLETED, RunState.FAILED, RunState.CANCELLED, RunState.LOST})
# Runs that occupy a place in the run window: announced to the orchestrator and not known to have ended.
OPEN = frozenset({RunState.SUBMITTING, RunState.SUBMITTED, RunState.RUNNING})
RANK: Mapping[RunState, int] = MappingProxyType(
    {
        RunState.PENDING: 0,
        RunState.SUBMITTING: 1,
        RunState.SUBMITTED: 2,
        RunState.RUNNING: 3,
        RunState.LOST: 4,
        RunState.COMPLETED: 5,
        RunState.FAILED: 5,
        RunState.CANCELLED: 5,
    }
)


def _to(state: RunState) -> Transition:
    return Transition(Verdict.APPLY, state)


_DUPLICATE = Transition(Verdict.DUPLICATE)
_LATE = Transition(Verdict.LATE)
_CONTRADICTION = Transition(Verdict.CONTRADICTION)
_NOTE = Transition(Verdict.NOTE)

_S, _E = RunState, RunEvent
TRANSITIONS: Mapping[tuple[RunState, RunEvent], Transition] = MappingProxyType(
    {
        (_S.PENDING, _E.CLAIM): _to(_S.SUBMITTING),
        (_S.PENDING, _E.ACCEPT): _LATE,
        (_S.PENDING, _E.REFUSE): _LATE,
        # Events of a pending run come when a manifest was restored from a backup older than the run.
        (_S.PENDING, _E.START): _to(_S.RUNNING),
        (_S.PENDING, _E.COMPLETE): _to(_S.COMPLETED),
        (_S.PENDING, _E.FAIL): _to(_S.FAILED),
        (_S.PENDING, _E.LOSE): _LATE,
        (_S.PENDING, _E.CANCEL): _to(_S.CANCELLED),
        # Metrics may overtake the events of their run.
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
        # Only a run sent again to an orchestrator that forgot it can be refused here.
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
        # Says something new only of a run that was sent again, see `forgotten`.
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
        # The orchestrator's confirmation of the STOP that we sent with the cancellation.
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


class ErrorKind(StrEnum):
    """Why a run did not complete. The first five are the orchestrator's words, the others ours."""

    SIMULATION = "simulation"
    INFEASIBLE = "infeasible"
    INFRASTRUCTURE = "infrastructure"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    REFUSED = "refused"  # the orchestrator answered the start call with a permanent error
    LOST = "lost"  # no end was ever heard of
    METRICS_MISSING = "metrics_missing"  # of a job whose run completed: awaited metrics did not come in time


# Metrics of one run, of its own end and of all events about it: each event may bring half as many.
MOST_METRICS = 2000


class Waiting(StrEnum):
    """What a completed run still lacks: metrics that its plan tracks `from: event`."""

    AWAITING = "awaiting"
    MISSING = "missing"


class StopReason(StrEnum):
    """Why a run was told to stop, or never sent: it decides what the confirmation means, and what `retry` takes."""

    TIMEOUT = "timeout"
    UNWANTED = "unwanted"  # another attempt won, or too many jobs of its experiment had failed


@dataclass(frozen=True, slots=True)
class Signal:
    """An event with what it carries. Times are milliseconds since the Unix epoch; absent ones are None."""

    event: RunEvent
    error_kind: ErrorKind | None = None
    message: str | None = None
    retryable: bool | None = None
    metrics: Mapping[str, float | None] | None = None
    artifacts: Mapping[str, str] | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    model_version: str | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One attempt at job (point, replicate), as the manifest has it.

    `current`: this attempt stands for its job. `ended_seq` and `job_revision`: position of the job's end among the
    ends of its experiment, and how many ends the job has had; both only on the current run of an ended job.
    `due_ms`: not to be claimed before. `elapsed_ms`: time under the limit that earlier worker processes have counted.
    """

    point: int
    replicate: int
    attempt: int
    seed: int
    state: RunState = RunState.PENDING
    current: bool = True
    due_ms: int = 0
    submitted_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    elapsed_ms: int = 0
    stop_reason: StopReason | None = None
    error_kind: ErrorKind | None = None
    error_message: str | None = None
    retryable: bool | None = None
    metrics: Mapping[str, float | None] | None = None
    artifacts: Mapping[str, str] | None = None
    waiting: Waiting | None = None
    model_version: str | None = None
    config_sha: str | None = None
    ended_seq: int | None = None
    job_revision: int = 0

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def settled(self) -> bool:
        """Whether a job that this run stands for has ended."""
        return self.state in TERMINAL and self.waiting is not Waiting.AWAITING


def interpret(run: Run, signal: Signal) -> Signal:
    """What `signal` means for this run: a confirmed STOP is a timeout or a cancellation, as we meant it."""
    if signal.event is not RunEvent.FAIL or signal.error_kind is not ErrorKind.STOPPED:
        return signal
    if run.stop_reason is StopReason.TIMEOUT:
        # Whether a stopped run may be repeated was said of the stop, which was ours.
        return _replace(signal, error_kind=ErrorKind.TIMEOUT, message="stopped at its time limit", retryable=None)
    if run.stop_reason is StopReason.UNWANTED:
        return _replace(signal, event=RunEvent.CANCEL)
    return signal


def advance(run: Run, signal: Signal, now_ms: int, awaited: frozenset[str] = frozenset()) -> tuple[Verdict, Run]:
    """The verdict on `signal` and the run after it: unchanged unless the verdict is APPLY or NOTE.

    `awaited`: metrics that come by events of their own, without which a completed run doesn't end its job.
    """
    signal = interpret(run, signal)
    transition = TRANSITIONS[run.state, signal.event]
    if transition.verdict is Verdict.NOTE:
        return _note(run, signal, now_ms, awaited)
    if transition.to is None:
        return transition.verdict, run
    state = transition.to
    if state is RunState.SUBMITTING:
        return transition.verdict, _replace(run, state=state, submitted_ms=now_ms)
    if state is RunState.SUBMITTED:
        return transition.verdict, _replace(run, state=state)
    if state is RunState.RUNNING:
        return transition.verdict, _started(run, signal, now_ms)
    completed = state is RunState.COMPLETED
    metrics = _merged(signal.metrics, run.metrics)
    return transition.verdict, _replace(
        run,
        state=state,
        started_ms=signal.started_ms or run.started_ms,
        finished_ms=signal.finished_ms or now_ms,
        error_kind=None if completed else signal.error_kind,
        error_message=None if completed else signal.message,
        retryable=signal.retryable,
        metrics=metrics,
        artifacts=signal.artifacts,
        waiting=Waiting.AWAITING if completed and not awaited <= (metrics or {}).keys() else None,
        model_version=signal.model_version or run.model_version,
    )


def forgotten(run: Run) -> Run:
    """An open run that is sent again to an orchestrator that forgot it: no time counts before it starts anew.

    Nor was it at its time limit then: the time that passed since it was forgotten isn't its own.
    """
    reason = None if run.stop_reason is StopReason.TIMEOUT else run.stop_reason
    return _replace(run, started_ms=None, elapsed_ms=0, stop_reason=reason)


def _started(run: Run, signal: Signal, now_ms: int) -> Run:
    """The limit counts from the start of the run, so what was counted while it queued is dropped."""
    return _replace(
        run,
        state=RunState.RUNNING,
        started_ms=signal.started_ms or now_ms,
        elapsed_ms=0,
        model_version=signal.model_version or run.model_version,
    )


def _note(run: Run, signal: Signal, now_ms: int, awaited: frozenset[str]) -> tuple[Verdict, Run]:
    if signal.event is RunEvent.START:
        after = _started(run, signal, now_ms) if run.started_ms is None else run
    elif signal.event is RunEvent.EXPIRE:
        after = _replace(run, waiting=Waiting.MISSING) if run.waiting is Waiting.AWAITING else run
    elif signal.event is RunEvent.AWAIT:
        after = _replace(run, waiting=Waiting.AWAITING) if run.waiting is Waiting.MISSING else run
    else:
        metrics = _merged(run.metrics, signal.metrics)
        if not metrics or metrics == run.metrics:
            return Verdict.DUPLICATE, run
        # What comes before a run's own metrics leaves room for them.
        if len(metrics) > (MOST_METRICS if run.state is RunState.COMPLETED else MOST_METRICS // 2):
            return Verdict.EXCESS, run
        there = run.waiting is not None and awaited <= metrics.keys()
        after = _replace(run, metrics=metrics, waiting=None if there else run.waiting)
    return (Verdict.DUPLICATE, run) if after == run else (Verdict.NOTE, after)


def _merged(
    first: Mapping[str, float | None] | None, second: Mapping[str, float | None] | None
) -> Mapping[str, float | None] | None:
    """Both sets of metrics; where both have a value that of `first` stands."""
    if not first or not second:
        return first or second
    return {**second, **{name: value for name, value in first.items() if value is not None or name not in second}}
