"""Values of the core to rows of the manifest, and back. JSON is compact; digests are stored as 32 bytes."""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import orjson

from ems_worker.core.documents import documents
from ems_worker.core.lifecycle.experiment import Aggregate, Bucket, ExperimentState, bucket
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run, RunState, StopReason, Waiting
from ems_worker.core.records import (
    Experiment,
    NewExperiment,
    ParkedEvent,
    PlanDecision,
    PointRecord,
    PointRow,
    Submission,
)

Row = tuple[Any, ...]

# Calling an enumeration to look a member up is several times slower than a dictionary, and this is done for every row.
_STATES = {state.value: state for state in RunState}
_KINDS = {kind.value: kind for kind in ErrorKind}
_STOPS = {reason.value: reason for reason in StopReason}
# The core's rule, by what the columns say: state, kind of error, waiting.
_BUCKETS = {
    (state.value, kind and kind.value, waiting and waiting.value): bucket(
        Run(0, 0, 1, 0, state, error_kind=kind, waiting=waiting)
    )
    for state in RunState
    for kind in (None, *ErrorKind)
    for waiting in (None, *Waiting)
}


def _json(value: Any) -> str:
    """Numbers that aren't finite become null."""
    return documents.encode(value).decode()


def new_run(key: int, run: Run) -> Row:
    """A row of insert_runs."""
    return (
        key,
        run.point,
        run.replicate,
        run.attempt,
        run.seed,
        run.state.value,
        run.current,
        run.due_ms,
        run.submitted_ms,
        run.started_ms,
        run.finished_ms,
        run.elapsed_ms,
        *_outcome(run),
    )


def changed_run(key: int, before: Run, after: Run) -> Row:
    """A row of update_runs."""
    return (
        key,
        after.point,
        after.replicate,
        after.attempt,
        before.state.value,
        after.state.value,
        after.current,
        after.due_ms,
        after.submitted_ms,
        after.started_ms,
        after.finished_ms,
        after.elapsed_ms,
        *_outcome(after),
    )


def _outcome(run: Run) -> Row:
    return (
        None if run.stop_reason is None else run.stop_reason.value,
        None if run.error_kind is None else run.error_kind.value,
        run.error_message,
        run.retryable,
        None if run.metrics is None else _json(run.metrics),
        None if run.artifacts is None else _json(run.artifacts),
        None if run.waiting is None else run.waiting.value,
        run.model_version,
        None if run.config_sha is None else bytes.fromhex(run.config_sha),
        run.ended_seq,
        run.job_revision,
    )


def run(row: Row) -> Run:
    """A run from `runs.*`."""
    retryable, metrics, artifacts, waiting, model_version, config_sha, ended_seq, job_revision = row[15:]
    return Run(
        point=row[1],
        replicate=row[2],
        attempt=row[3],
        seed=row[4],
        state=_STATES[row[5]],
        current=bool(row[6]),
        due_ms=row[7],
        submitted_ms=row[8],
        started_ms=row[9],
        finished_ms=row[10],
        elapsed_ms=row[11],
        stop_reason=None if row[12] is None else _STOPS[row[12]],
        error_kind=None if row[13] is None else _KINDS[row[13]],
        error_message=row[14],
        retryable=None if retryable is None else bool(retryable),
        metrics=None if metrics is None else orjson.loads(metrics),
        artifacts=None if artifacts is None else orjson.loads(artifacts),
        waiting=None if waiting is None else Waiting(waiting),
        model_version=model_version,
        config_sha=None if config_sha is None else config_sha.hex(),
        ended_seq=ended_seq,
        job_revision=job_revision,
    )


def jobs(rows: Sequence[Row]) -> dict[tuple[int, int, int], Job]:
    """Jobs by (experiment key, point, replicate) from `runs.*`, each job's attempts beside each other and in order."""
    return {key: Job(tuple(run(row) for row in group)) for key, group in groupby(rows, key=lambda row: row[:3])}


def new_point(key: int, point: PointRecord) -> Row:
    return (
        key,
        point.point,
        _json(point.params),
        point.run_id_suffix,
        None if point.labels is None else _json(point.labels),
    )


def point(row: Row) -> PointRecord:
    """The standard json reader, since orjson makes floats of large integers."""
    number, params, suffix, labels = row
    return PointRecord(number, json.loads(params), suffix, None if labels is None else json.loads(labels))


def submission(row: Row) -> Submission:
    stream, created, seq, stored, subject, received, verdict, document, *rest = row
    return Submission(stream, created, seq, stored, subject, received, PlanDecision(verdict), document.encode(), *rest)


def new_submission(one: Submission) -> Row:
    return (
        *one.identity,
        one.stream,
        one.subject,
        one.received_ms,
        one.decision.value,
        one.document.decode(),
        one.experiment_id,
        one.plan_sha,
        one.publisher,
        one.reply_to,
        one.digest,
    )


def new_experiment(one: NewExperiment) -> Row:
    return (
        one.experiment_id,
        one.name,
        one.group,
        one.plan_sha,
        one.points,
        one.jobs,
        one.replicates,
        _json(one.metrics),
        one.goal_metric,
        one.goal,
        one.created_ms,
        ExperimentState.ACCEPTED.value,
    )


def new_plan(one: NewExperiment) -> Row:
    return (
        one.experiment_id,
        one.description,
        _json(one.tags),
        None if one.parameters is None else _json(one.parameters),
        one.traceparent,
        one.plan,
        one.base.decode(),
    )


def experiment(row: Row) -> Experiment:
    """An experiment from `experiments.*, plans.*`."""
    key, experiment_id, name, group, plan_sha, points, jobs, replicates, metrics, goal_metric, goal, created_ms = row[
        :12
    ]
    state, round_, revision, published_revision, _, ended_seq, published_seq, expanded, started, finished, reason = row[
        12:23
    ]
    _, description, tags, parameters, traceparent, plan, base = row[23:]
    spec = NewExperiment(
        experiment_id=experiment_id,
        name=name,
        plan=plan,
        base=base.encode(),
        plan_sha=plan_sha,
        points=points,
        jobs=jobs,
        replicates=replicates,
        created_ms=created_ms,
        group=group,
        tags=tuple(json.loads(tags)),
        description=description,
        parameters=None if parameters is None else json.loads(parameters),
        metrics=tuple(json.loads(metrics)),
        goal_metric=goal_metric,
        goal=goal,
        traceparent=traceparent,
    )
    return Experiment(
        key=key,
        spec=spec,
        state=ExperimentState(state),
        round=round_,
        revision=revision,
        published_revision=published_revision,
        ended_seq=ended_seq,
        published_seq=published_seq,
        expanded_points=expanded,
        started_ms=started,
        finished_ms=finished,
        reason=reason,
    )


def new_parked(one: ParkedEvent) -> Row:
    return one.simulation_id, one.subject, one.seq, one.received_ms, one.data


def parked(row: Row) -> ParkedEvent:
    return ParkedEvent(*row)


class Count:
    """Counts jobs by bucket and aggregates the tracked metrics of completed ones, fed one standing run at a time."""

    def __init__(self, tracked: Sequence[str]) -> None:
        self.counts: dict[Bucket, int] = {}
        self.metrics = {name: Aggregate() for name in tracked}

    def add(self, state: str, error_kind: str | None, waiting: str | None, metrics: str | None) -> None:
        name = _BUCKETS[state, error_kind, waiting]
        self.counts[name] = self.counts.get(name, 0) + 1
        if name is Bucket.COMPLETED and self.metrics:
            values = {} if metrics is None else orjson.loads(metrics)
            for metric, aggregate in self.metrics.items():
                self.metrics[metric] = aggregate.add(values.get(metric))


def point_row(record: PointRecord, standing: Sequence[Row], tracked: Sequence[str]) -> PointRow:
    """A point with its jobs, from rows of standing_of_points."""
    count = Count(tracked)
    for _, state, error_kind, waiting, metrics, _ in standing:
        count.add(state, error_kind, waiting, metrics)
    ends = [row[5] for row in standing]
    ended_seq = None if not ends or None in ends else max(ends)
    return PointRow(record, count.counts, count.metrics, ended_seq)
