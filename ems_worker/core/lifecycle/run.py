"""A run: one attempt at a job, what is known of it, and how events change that."""

from collections.abc import Mapping

from msgspec import Struct
from msgspec.structs import replace as _replace

from ems_worker.core.lifecycle.transitions import OPEN, TERMINAL, TRANSITIONS, Effect, RunEvent, RunState
from ems_worker.core.words import Word


class ErrorKind(Word):
    """Why a run did not complete. The orchestrator reports the first five; the worker sets the others."""

    SIMULATION = "simulation"
    INFEASIBLE = "infeasible"
    INFRASTRUCTURE = "infrastructure"
    TIMEOUT = "timeout"
    STOPPED = "stopped"
    REFUSED = "refused"  # the start call returned an error that no retry can change
    LOST = "lost"  # its time limit passed without news of its end
    METRICS_MISSING = "metrics_missing"  # of a job: its run completed, but metrics did not arrive in time


# Of one run, from its end and all events about it. One event may carry half as many.
MAX_METRICS = 2000
# A start that is later than the known one by this much is another start; below, the two may come from different clocks.
_LATER_START_MS = 1000


class Waiting(Word):
    """Whether a completed run lacks metrics that its plan tracks with `from: event`."""

    AWAITING = "awaiting"
    MISSING = "missing"


class StopReason(Word):
    """Why a run was stopped or never sent.

    It decides what a confirmed STOP means, and whether `retry` includes the job.
    """

    TIMEOUT = "timeout"  # it passed its time limit
    SUPERSEDED = "superseded"  # another attempt won
    FAILING_FAST = "failing_fast"  # more jobs of its experiment failed than its plan allows
    CANCELLED = "cancelled"  # a person cancelled it
    STRAGGLER = "straggler"  # its experiment settled without it
    RACED = "raced"  # a race found its point worse than the leader


# The reasons for which a run's result is not wanted: a confirmed STOP cancels the run.
UNWANTED = frozenset(StopReason) - {StopReason.TIMEOUT}
# Those for which somebody called off the job itself: it counts as neither a success nor a failure.
CALLED_OFF = frozenset({StopReason.CANCELLED, StopReason.STRAGGLER, StopReason.RACED})

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_NOTE, _FAIL, _SUBMITTING, _SUBMITTED, _RUNNING, _COMPLETED = (
    Effect.NOTE,
    RunEvent.FAIL,
    RunState.SUBMITTING,
    RunState.SUBMITTED,
    RunState.RUNNING,
    RunState.COMPLETED,
)


class Signal(Struct, frozen=True, gc=False):
    """An event and its content. Times are milliseconds since the Unix epoch; None where the event has none."""

    event: RunEvent
    error_kind: ErrorKind | None = None
    message: str | None = None
    retryable: bool | None = None
    metrics: Mapping[str, float | None] | None = None
    artifacts: Mapping[str, str] | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    model_version: str | None = None
    # Where the run is or was.
    host: str | None = None
    slot: str | None = None
    # Progress of an open run: `step` of `total`, in units of its own.
    step: float | None = None
    total: float | None = None


class Run(Struct, frozen=True, gc=False):
    """One attempt at job (point, replicate), as recorded in the manifest.

    `current`: this attempt represents its job. `ended_seq`: the position of the job's end among the ends of its
    experiment, and `job_revision`: how many ends the job has had; both are set on the current run of an ended job.
    `due_ms`: the earliest time to claim it. `elapsed_ms`: the time that counts against its limit, as last recorded.
    `drains`: its job is cancelled, and this run may end by itself. `suspended`: the orchestrator confirmed a PAUSE.
    `step` of `total`: how far an open run was when it last reported. `excluded`: why its job doesn't count; each new
    attempt and the winning one take that over, as they do `job_revision`.
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
    drains: bool = False
    suspended: bool = False
    host: str | None = None
    slot: str | None = None
    step: float | None = None
    total: float | None = None
    excluded: str | None = None

    @property
    def ended(self) -> bool:
        return self.state in TERMINAL

    @property
    def settled(self) -> bool:
        """Whether the job has ended, if this run represents it."""
        return self.state in TERMINAL and self.waiting is not Waiting.AWAITING

    @property
    def to_be_stopped(self) -> bool:
        """Whether STOP is sent for it while it is open: there is a reason, and it may not end by itself."""
        if self.drains and self.stop_reason is not StopReason.TIMEOUT:
            return False
        return self.stop_reason is not None

    @property
    def called_off(self) -> bool:
        """Whether somebody called off its job."""
        return called_off(self.stop_reason, self.drains)


def called_off(stop_reason: StopReason | None, drains: bool) -> bool:
    """Whether the job of such a run was called off: by a person, its settled experiment, or a race.

    A job that was called off counts only if it completes all the same. It gets no next attempt, and a retry takes it
    only if asked for by its state.
    """
    return drains or stop_reason in CALLED_OFF


def interpret(run: Run, signal: Signal) -> Signal:
    """What `signal` means for this run: a confirmed STOP is a timeout or a cancellation, by the reason for the STOP."""
    if signal.event is not _FAIL or signal.error_kind is not ErrorKind.STOPPED:
        return signal
    if run.stop_reason is StopReason.TIMEOUT:
        # `retryable` describes the stop, which the worker asked for.
        return _replace(signal, error_kind=ErrorKind.TIMEOUT, message="stopped at its time limit", retryable=None)
    if run.stop_reason in UNWANTED:
        return _replace(signal, event=RunEvent.CANCEL)
    return signal


def advance(run: Run, signal: Signal, now_ms: int, awaited: frozenset[str] = frozenset()) -> tuple[Effect, Run]:
    """The effect of `signal`, and the run after it: unchanged unless the effect is APPLY or NOTE.

    `awaited`: metrics that arrive in events of their own; without them a completed run doesn't end its job.
    """
    signal = interpret(run, signal)
    transition = TRANSITIONS[run.state, signal.event]
    if transition.effect is _NOTE:
        return _note(run, signal, now_ms, awaited)
    if transition.to is None:
        return transition.effect, run
    state = transition.to
    if state is _SUBMITTING:
        return transition.effect, _replace(run, state=state, submitted_ms=now_ms)
    if state is _SUBMITTED:
        return transition.effect, _replace(run, state=state)
    if state is _RUNNING:
        return transition.effect, _started(run, signal, now_ms)
    completed = state is _COMPLETED
    metrics = _merged(signal.metrics, run.metrics)
    return transition.effect, _replace(
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
        host=signal.host or run.host,
        slot=signal.slot or run.slot,
        suspended=False,
    )


def forgotten(run: Run) -> Run:
    """An open run that is sent again to an orchestrator that lost it: its time counts from zero when it starts.

    A STOP for its time limit is void: the run did not use the time that passed since the orchestrator lost it. It is
    not suspended any more, and makes its progress anew, perhaps on another host.
    """
    reason = None if run.stop_reason is StopReason.TIMEOUT else run.stop_reason
    return _replace(
        run,
        started_ms=None,
        elapsed_ms=0,
        stop_reason=reason,
        suspended=False,
        host=None,
        slot=None,
        step=None,
        total=None,
    )


def _started(run: Run, signal: Signal, now_ms: int) -> Run:
    """The limit counts from the last start of the run, without the time in the orchestrator's queue."""
    again = run.started_ms is not None
    return _replace(
        run,
        state=_RUNNING,
        started_ms=signal.started_ms or now_ms,
        elapsed_ms=0,
        model_version=signal.model_version or run.model_version,
        host=signal.host or run.host,
        slot=signal.slot or run.slot,
        step=None if again else run.step,
        total=None if again else run.total,
    )


def _note(run: Run, signal: Signal, now_ms: int, awaited: frozenset[str]) -> tuple[Effect, Run]:
    if signal.event is RunEvent.START:
        # A run that is known to be running may still learn where: a status may have preceded the event.
        after = _started(run, signal, now_ms) if _starts_anew(run, signal) else _located(run, signal)
    elif signal.event is RunEvent.EXPIRE:
        after = _replace(run, waiting=Waiting.MISSING) if run.waiting is Waiting.AWAITING else run
    elif signal.event is RunEvent.AWAIT:
        after = _replace(run, waiting=Waiting.AWAITING) if run.waiting is Waiting.MISSING else run
    else:
        progressed = _progressed(run, signal)
        metrics = _merged(run.metrics, signal.metrics)
        if not metrics or metrics == run.metrics:
            return (Effect.DUPLICATE, run) if progressed == run else (_NOTE, progressed)
        # Metrics that arrive before the run ends leave room for those of its end.
        if len(metrics) > (MAX_METRICS if run.state is _COMPLETED else MAX_METRICS // 2):
            return Effect.EXCESS, run
        there = run.waiting is not None and awaited <= metrics.keys()
        after = _replace(progressed, metrics=metrics, waiting=None if there else run.waiting)
    return (Effect.DUPLICATE, run) if after == run else (_NOTE, after)


def _starts_anew(run: Run, signal: Signal) -> bool:
    """Whether a running run gets its first start time, or started again after a shutdown of its orchestrator."""
    return run.started_ms is None or (signal.started_ms or 0) >= run.started_ms + _LATER_START_MS


def _located(run: Run, signal: Signal) -> Run:
    """The run with the place that the signal names, unless its place is known."""
    if run.host is not None or signal.host is None:
        return run
    return _replace(run, host=signal.host, slot=signal.slot)


def _progressed(run: Run, signal: Signal) -> Run:
    """The run with the progress that the signal reports; that of a run that isn't open is no news."""
    if run.state not in OPEN or (signal.step is None and signal.total is None):
        return run
    return _replace(
        run,
        step=run.step if signal.step is None else signal.step,
        total=run.total if signal.total is None else signal.total,
    )


def _merged(
    first: Mapping[str, float | None] | None, second: Mapping[str, float | None] | None
) -> Mapping[str, float | None] | None:
    """Both sets of metrics; where both have a value that of `first` stands."""
    if not first or not second:
        return first or second
    return {**second, **{name: value for name, value in first.items() if value is not None or name not in second}}
