"""Manifests with content, for tests."""

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle import experiment, job
from ems_worker.core.lifecycle.experiment import ExperimentState, PauseOwner
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, NewExperiment, PlanDecision, PointRecord, Submission

NOW_MS = 1_760_000_000_123
SHA = "ab" * 32


def submission(seq: int, experiment_id: str | None = None, **changes: Any) -> Submission:
    """The decision about message `seq`: accepted if there is an experiment."""
    plain = Submission(
        stream="EMS_PLANS",
        stream_created_ns=1_750_000_000_000_000_000,
        seq=seq,
        stored_ms=NOW_MS,
        subject="ems.experiment.submit",
        received_ms=NOW_MS,
        decision=PlanDecision.REJECTED if experiment_id is None else PlanDecision.ACCEPTED,
        document=b'{"schema":"ems.decision.v1"}',
        experiment_id=experiment_id,
        plan_sha=SHA,
    )
    return replace(plain, **changes)


def spec(experiment_id: str = "reef", points: int = 3, replicates: int = 2, **changes: Any) -> NewExperiment:
    plain = NewExperiment(
        experiment_id=experiment_id,
        name=f"{experiment_id} of a test",
        plan=b"experiment_name: \xf0\x9f\x90\x9f\n",
        base=b'{"z": 1, "a": {"b": [1.0, "\xc3\xa4"]}}',
        plan_sha=SHA,
        points=points,
        jobs=points * replicates,
        replicates=replicates,
        created_ms=NOW_MS,
        metrics=("population",),
        goal_metric="population",
        goal="maximize",
    )
    return replace(plain, **changes)


async def accepted(manifest: Manifest, new: NewExperiment, seq: int = 1) -> Experiment:
    """The experiment, accepted from message `seq` and not expanded."""
    await manifest.record_submission(submission(seq, new.experiment_id), new)
    record = await manifest.experiment(new.experiment_id)
    assert record is not None
    return record


def jobs_of(numbers: Sequence[int], replicates: int) -> tuple[list[PointRecord], list[Run]]:
    """Points of these numbers with their first runs, as expansion creates them."""
    points = [PointRecord(number, {"food": 25 * number, "heat": number / 8}) for number in numbers]
    return points, [
        job.first(number, replicate, 1000 + replicate) for number in numbers for replicate in range(replicates)
    ]


async def running(manifest: Manifest, new: NewExperiment | None = None, seq: int = 1) -> Experiment:
    """The experiment with all its jobs pending."""
    record = await accepted(manifest, new or spec(), seq)
    points, runs = jobs_of(range(record.spec.points), record.spec.replicates)
    await manifest.expand(record.key, points, runs, record.spec.points)
    return await moved(manifest, record, ExperimentState.RUNNING)


async def moved(
    manifest: Manifest, before: Experiment, state: ExperimentState, *, at_ms: int = NOW_MS, reason: str | None = None
) -> Experiment:
    """The experiment in another state, by the record of its present one. A person pauses it."""
    after = replace(
        before,
        state=state,
        reason=reason,
        round=before.round + (before.state in experiment.ENDED and state not in experiment.ENDED),
        started_ms=before.started_ms or (at_ms if state is ExperimentState.RUNNING else None),
        finished_ms=at_ms if state in experiment.ENDED else None,
        pauses=frozenset({PauseOwner.PERSON}) if state is ExperimentState.PAUSED else frozenset(),
    )
    await manifest.save_experiment(before, after)
    found = await manifest.experiment(before.spec.experiment_id)
    assert found is not None
    return found


def claimed(before: Run) -> Run:
    return replace(before, state=RunState.SUBMITTING, submitted_ms=NOW_MS, config_sha=SHA)


def ended(before: Run, state: str, **changes: Any) -> Run:
    return replace(before, state=RunState(state), finished_ms=NOW_MS, **changes)


def completed(before: Run, ended_seq: int, **metrics: float | None) -> Run:
    return replace(
        before,
        state=RunState.COMPLETED,
        started_ms=NOW_MS + 1,
        finished_ms=NOW_MS + 2001,
        metrics=metrics,
        artifacts={"series": f"file:///out/{ended_seq}.csv"},
        model_version="fish-1",
        ended_seq=ended_seq,
        job_revision=before.job_revision + 1,
    )


async def pending(manifest: Manifest, record: Experiment) -> list[Run]:
    """The runs of the experiment that are pending and due, in order."""
    return [due.current for due, _ in await manifest.due(record.key, NOW_MS, 1000)]


async def complete_all(manifest: Manifest, record: Experiment) -> None:
    """Ends every job; the population of job i (in order, from 0) is 10 * i."""
    due = await manifest.due(record.key, NOW_MS, record.spec.jobs)
    changes = [
        (record.key, one.current, completed(claimed(one.current), index + 1, population=10.0 * index))
        for index, (one, _) in enumerate(due)
    ]
    await manifest.save(changes, {record.key: len(changes)})
