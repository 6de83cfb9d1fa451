"""Experiments and the versions of their plans to rows of the manifest, and back; see rows.py."""

import json

from ems_worker.adapters.manifest import reads, rows
from ems_worker.adapters.manifest.rows import Row
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner
from ems_worker.core.records import Experiment, NewExperiment


def new_experiment(spec: NewExperiment) -> Row:
    """A row of insert_experiment."""
    return (
        spec.experiment_id,
        spec.name,
        spec.group,
        spec.plan_sha,
        spec.points,
        spec.jobs,
        spec.replicates,
        rows.to_json(spec.metrics),
        spec.goal_metric,
        spec.goal,
        spec.created_ms,
        (ExperimentState.PAUSED if spec.hold else ExperimentState.ACCEPTED).value,
        PauseOwner.HOLD.value if spec.hold else "",
        spec.keep_open,
    )


def new_plan(spec: NewExperiment) -> Row:
    """A row of insert_plan."""
    return (spec.experiment_id, *_plan(spec), spec.base.decode())


def new_plan_version(after: Experiment) -> Row:
    """A row of insert_plan_version."""
    return (after.key, after.plan_version, after.spec.plan_sha, *_plan(after.spec))


def _plan(spec: NewExperiment) -> Row:
    return (
        spec.language,
        spec.hold,
        spec.keep_open,
        spec.description,
        rows.to_json(spec.tags),
        None if spec.parameters is None else rows.to_json(spec.parameters),
        spec.traceparent,
        spec.plan,
        rows.to_json(spec.headings),
    )


def saved_experiment(before: Experiment, after: Experiment) -> Row:
    """A row of save_experiment."""
    return (
        after.key,
        before.state.value,
        before.round,
        after.state.value,
        after.reason,
        after.round,
        after.started_ms,
        after.finished_ms,
        ",".join(sorted(after.pauses)),
        after.pause_now,
        None if after.cancel is None else after.cancel.value,
        after.kept_open,
        rows.to_json(after.overrides),
        after.plan_version,
        after.settled_round,
        after.settling_ms,
        after.earlier_jobs,
    )


def grown_experiment(before: Experiment, after: Experiment) -> Row:
    """A row of grow_experiment."""
    return (
        after.key,
        before.spec.points,
        before.spec.jobs,
        after.spec.points,
        after.spec.jobs,
        after.spec.replicates,
        after.expanded_points,
        after.spec.plan_sha,
    )


def experiment(row: reads.ExperimentRow) -> Experiment:
    spec = NewExperiment(
        experiment_id=row.experiment_id,
        name=row.name,
        plan=row.plan,
        base=row.base.encode(),
        plan_sha=row.plan_sha,
        points=row.points,
        jobs=row.jobs,
        replicates=row.replicates,
        created_ms=row.created_ms,
        group=row.group,
        tags=tuple(json.loads(row.tags)),
        description=row.description,
        parameters=None if row.parameters is None else json.loads(row.parameters),
        metrics=tuple(json.loads(row.metrics)),
        goal_metric=row.goal_metric,
        goal=row.goal,
        traceparent=row.traceparent,
        language=row.language,
        hold=row.hold == 1,
        keep_open=row.keep_open == 1,
        headings=json.loads(row.headings),
    )
    return Experiment(
        key=row.key,
        spec=spec,
        state=ExperimentState(row.state),
        round=row.round,
        revision=row.revision,
        published_revision=row.published_revision,
        ended_seq=row.ended_seq,
        published_seq=row.published_seq,
        expanded_points=row.expanded_points,
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
        reason=row.reason,
        pauses=frozenset(PauseOwner(owner) for owner in row.pauses.split(",") if owner),
        pause_now=row.pause_now == 1,
        cancel=None if row.cancel is None else CancelMode(row.cancel),
        kept_open=row.kept_open == 1,
        overrides=json.loads(row.overrides),
        plan_version=row.plan_version,
        settled_round=row.settled_round,
        settling_ms=row.settling_ms,
        earlier_jobs=row.earlier_jobs,
    )
