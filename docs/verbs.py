"""The tables of docs/state-machine.md that show what each verb does to an experiment, and to a job."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from msgspec import structs

from ems_worker.core.lifecycle import experiment, job, steering, tally
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner, Standing
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.transitions import RunState

NOTHING = "–"  # noqa: RUF001


@dataclass(frozen=True, slots=True)
class Request:
    """A verb with its options, as a column of the table of experiments."""

    verb: Verb
    option: str = ""

    def rule(self, standing: Standing, expanded: bool) -> steering.Ruling:
        """What it does."""
        return steering.rule(
            self.verb,
            standing,
            where=self.option == "where",
            expanded=expanded,
            now=self.option == "now",
            drain=self.option == "drain",
        )


REQUESTS = (
    Request(Verb.PAUSE),
    Request(Verb.PAUSE, "now"),
    Request(Verb.RESUME),
    Request(Verb.CANCEL),
    Request(Verb.CANCEL, "drain"),
    Request(Verb.CANCEL, "where"),
    *(Request(verb) for verb in (Verb.RETRY, Verb.EXTEND, Verb.SET, Verb.CLOSE, Verb.EXCLUDE, Verb.INCLUDE)),
)


def standings() -> Iterable[tuple[Standing, bool]]:
    """The rows of the table of experiments: how one stands, and whether all its points are expanded."""
    running, paused = Standing(ExperimentState.RUNNING), Standing(ExperimentState.PAUSED)
    yield Standing(ExperimentState.ACCEPTED), False
    yield running, False
    yield running, True
    yield replace(running, kept_open=True), True
    person, budget = PauseOwner.PERSON, PauseOwner.BUDGET
    for owners in (*({owner} for owner in PauseOwner), {person, budget}, {PauseOwner.HOLD, budget}):
        yield replace(paused, pauses=frozenset(owners)), True
    yield replace(paused, pauses=frozenset({person}), pause_now=True), True
    yield replace(paused, pauses=frozenset({PauseOwner.HOLD})), False
    for mode in (CancelMode.DRAIN, CancelMode.STOP):
        for expanded in (False, True):
            yield replace(running, cancel=mode), expanded
    for ended in (ExperimentState.COMPLETED, ExperimentState.FAILED, ExperimentState.CANCELLED):
        yield Standing(ended, cancel=CancelMode.STOP if ended is ExperimentState.CANCELLED else None), True


def described(standing: Standing, expanded: bool = True) -> str:
    """How an experiment stands, in words."""
    words = [f"`{standing.state}`"]
    if standing.state not in experiment.ENDED and standing.cancel is not None:
        words.append("draining" if standing.cancel is CancelMode.DRAIN else "stopping")
    if standing.pauses:
        words.append("by " + " and ".join(owner for owner in PauseOwner if owner in standing.pauses))
    if standing.pause_now:
        words.append("with open runs")
    if standing.kept_open:
        words.append("kept open")
    if not expanded:
        words.append("expanding")
    return ", ".join(words)


def experiments() -> list[str]:
    """What each verb does to an experiment, by how it stands."""
    lines = [
        f"| experiment | {' | '.join(f'{request.verb} {request.option}'.strip() for request in REQUESTS)} |",
        f"| --- |{' --- |' * len(REQUESTS)}",
    ]
    for standing, expanded in standings():
        cells = [_ruled(request, request.rule(standing, expanded), standing) for request in REQUESTS]
        lines.append(f"| {described(standing, expanded)} | {' | '.join(cells)} |")
    return [*lines, ""]


def _ruled(request: Request, ruling: steering.Ruling, before: Standing) -> str:
    if ruling.refused is not None:
        return "refused"
    if not ruling.changed:
        return NOTHING
    if ruling.reopens(before):
        return "a new round"
    words = [described(ruling.after)] if ruling.after != before else []
    if ruling.judges:
        judged = "points" if request.verb is Verb.EXTEND else "jobs"
        words.append(f"{judged}, also those to come" if ruling.follows else judged)
    return "; ".join(words) or "recorded"


_RUN = Run(point=0, replicate=0, attempt=1, seed=0)
_LOST = structs.replace(_RUN, state=RunState.LOST, error_kind=ErrorKind.LOST, finished_ms=0, current=False)


def jobs() -> Iterable[tuple[str, Job]]:
    """The rows of the table of jobs."""
    yield "`pending`, never started", Job((_RUN,))
    yield "`pending`, a further attempt", Job((_LOST, structs.replace(_RUN, attempt=2)))
    for state in (RunState.SUBMITTING, RunState.SUBMITTED, RunState.RUNNING):
        yield f"`{state}`", Job((structs.replace(_RUN, state=state),))
    running = structs.replace(_RUN, state=RunState.RUNNING)
    yield "`running`, draining", Job((structs.replace(running, drains=True),))
    for reason in StopReason:
        if reason is not StopReason.SUPERSEDED:
            yield f"`running`, being stopped: {reason}", Job((structs.replace(running, stop_reason=reason),))
    ended = structs.replace(_RUN, state=RunState.COMPLETED, finished_ms=0, ended_seq=1)
    yield "`awaiting_metrics`", Job((structs.replace(ended, waiting=Waiting.AWAITING, ended_seq=None),))
    yield "`completed`", Job((ended,))
    yield "`failed`", Job((structs.replace(ended, state=RunState.FAILED, error_kind=ErrorKind.SIMULATION),))
    yield "`failed`, metrics missing", Job((structs.replace(ended, waiting=Waiting.MISSING),))
    yield "`failed`, infeasible", Job((structs.replace(ended, state=RunState.FAILED, error_kind=ErrorKind.INFEASIBLE),))
    lost = structs.replace(ended, state=RunState.LOST, error_kind=ErrorKind.LOST)
    yield "`lost`", Job((lost,))
    yield "`lost`, was to be stopped: cancelled", Job((structs.replace(lost, stop_reason=StopReason.CANCELLED),))
    cancelled = structs.replace(ended, state=RunState.CANCELLED)
    for reason in (StopReason.FAILING_FAST, StopReason.CANCELLED, StopReason.STRAGGLER, StopReason.RACED):
        yield f"`cancelled`: {reason}", Job((structs.replace(cancelled, stop_reason=reason),))


Decision = Callable[[Job], Job | None]
DECISIONS: dict[str, Decision] = {
    "cancel": lambda before: job.cancelled(before, 0, StopReason.CANCELLED),
    "cancel drain": lambda before: job.cancelled(before, 0, StopReason.CANCELLED, drain=True),
    "retry": lambda before: job.again(before, 0),
    "retry where": lambda before: job.again(before, 0, frozenset()),
    "retry where, by error_kind": lambda before: job.again(before, 0, frozenset({"error_kind"})),
    "retry where, by state": lambda before: job.again(before, 0, frozenset({"state"})),
    "exclude": lambda before: job.excluded(before, "excluded"),
    "include": lambda before: job.included(job.excluded(before, "excluded") or before),
}


def of_jobs() -> list[str]:
    """What each verb that judges jobs does to one, by its state."""
    lines = [f"| job | {' | '.join(DECISIONS)} |", f"| --- |{' --- |' * len(DECISIONS)}"]
    for name, before in jobs():
        cells = [_decided(before, decide(before)) for decide in DECISIONS.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return [*lines, ""]


def _decided(before: Job, after: Job | None) -> str:
    if after is None:
        return NOTHING
    old, new = before.current, after.current
    if new.excluded is not None:
        return "excluded"
    if len(after.runs) > len(before.runs):
        return "next attempt"
    if new == old:
        return "included"
    if new.settled:
        return f"**{tally.job_state(new)}**"
    if old.settled:
        return "waits again"
    if new.stop_reason is not old.stop_reason:
        return "STOP"
    return "may end" if new.stop_reason is None else "no next attempt"
