"""The records of a plan message: its submission with the decision, and the experiment of an accepted plan."""

from collections.abc import Sequence

from msgspec.structs import replace

from ems_worker.core import trace
from ems_worker.core.documents import documents
from ems_worker.core.language import quotes, version
from ems_worker.core.records import NewExperiment, PlanDecision, Submission
from ems_worker.core.wire import Message
from ems_worker.errors import Problem
from ems_worker.service.intake.examination import Outline


def decided(undecided: Submission, decision: PlanDecision, experiment_id: str, outline: Outline) -> Submission:
    """The submission of a valid plan."""
    document = documents.decision(
        decision,
        experiment_id=experiment_id,
        points=outline.count.points,
        jobs=outline.count.jobs,
        plan_sha=outline.plan_sha,
        warnings=outline.warnings,
        stream=undecided.stream,
        seq=undecided.seq,
    )
    return replace(
        undecided,
        decision=decision,
        document=documents.encode(document),
        experiment_id=experiment_id,
        plan_sha=outline.plan_sha,
    )


def rejected(undecided: Submission, problems: Sequence[Problem]) -> Submission:
    """The submission of a plan that is rejected for these problems."""
    document = documents.decision(PlanDecision.REJECTED, errors=problems, stream=undecided.stream, seq=undecided.seq)
    return replace(
        undecided,
        decision=PlanDecision.REJECTED,
        document=documents.encode(document),
        experiment_id=None,
        plan_sha=None,
        digest=None,
    )


def repeated(undecided: Submission, accepted: bytes) -> Submission:
    """The submission of a plan with the same bytes as an accepted plan, whose decision is `accepted`."""
    document = documents.repeated(accepted, undecided.stream, undecided.seq)
    return replace(
        undecided,
        decision=PlanDecision.DUPLICATE,
        document=documents.encode(document),
        experiment_id=document["experiment_id"],
        plan_sha=document["plan_sha"],
    )


def experiment(
    outline: Outline, message: Message, *, experiment_id: str, plan: bytes, base: bytes, created_ms: int
) -> NewExperiment:
    """The experiment of an accepted plan."""
    return NewExperiment(
        experiment_id=experiment_id,
        name=outline.experiment_name or experiment_id,
        plan=plan,
        base=base,
        plan_sha=outline.plan_sha,
        points=outline.count.points,
        jobs=outline.count.jobs,
        replicates=outline.replicates,
        created_ms=created_ms,
        group=outline.group,
        tags=outline.tags,
        description=outline.description,
        parameters=outline.parameters,
        metrics=outline.metrics,
        headings=outline.headings,
        goal_metric=outline.goal_metric,
        goal=outline.goal,
        language=version.VERSION,
        hold=outline.hold,
        keep_open=outline.keep_open,
        traceparent=trace.parent(message.headers.get(trace.HEADER)),
    )


def removed(experiment_id: str, removed_ms: int) -> Problem:
    """The problem of a plan whose experiment was removed."""
    message = (
        f"{quotes.name(experiment_id)} was removed at {documents.timestamp(removed_ms)}, and its id stays taken: "
        "to run the plan again, give it another experiment_id"
    )
    return Problem("removed_experiment", "experiment_id", message, location=("experiment_id",))
