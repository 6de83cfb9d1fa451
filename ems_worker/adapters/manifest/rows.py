"""Values of the core to rows of the manifest, and back. JSON is compact; digests are stored as 32 bytes.

What is read comes with the names of its columns (reads.py). A row that is written has its values in the order in which
its statement in writes.sql names them.
"""

import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

import orjson

from ems_worker.adapters.manifest import reads
from ems_worker.core.documents import documents
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.experiment import Bucket, ExperimentState
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import (
    Experiment,
    NewExperiment,
    ParkedEvent,
    PointRecord,
    PointRow,
)

Row = tuple[Any, ...]

# Looking a member up by calling its enumeration is several times slower than a dictionary, and happens for every row.
_STATES = {state.value: state for state in RunState}
_KINDS = {kind.value: kind for kind in ErrorKind}
_STOPS = {reason.value: reason for reason in StopReason}
_WAITING = {waiting.value: waiting for waiting in Waiting}
_BUCKETS = {bucket.value: bucket for bucket in Bucket}

_JOB = attrgetter("experiment", "point", "replicate")


def _json(value: Any) -> str:
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


def run(row: reads.RunRow) -> Run:
    return Run(
        point=row.point,
        replicate=row.replicate,
        attempt=row.attempt,
        seed=row.seed,
        state=_STATES[row.state],
        current=row.current == 1,
        due_ms=row.due_ms,
        submitted_ms=row.submitted_ms,
        started_ms=row.started_ms,
        finished_ms=row.finished_ms,
        elapsed_ms=row.elapsed_ms,
        stop_reason=None if row.stop_reason is None else _STOPS[row.stop_reason],
        error_kind=None if row.error_kind is None else _KINDS[row.error_kind],
        error_message=row.error_message,
        retryable=None if row.retryable is None else row.retryable == 1,
        metrics=None if row.metrics is None else orjson.loads(row.metrics),
        artifacts=None if row.artifacts is None else orjson.loads(row.artifacts),
        waiting=None if row.waiting is None else _WAITING[row.waiting],
        model_version=row.model_version,
        config_sha=None if row.config_sha is None else row.config_sha.hex(),
        ended_seq=row.ended_seq,
        job_revision=row.job_revision,
    )


def jobs(rows: Iterable[reads.RunRow]) -> dict[tuple[int, int, int], Job]:
    """Jobs by (experiment key, point, replicate), from rows that have each job's attempts together and in order."""
    return {key: Job(tuple([run(row) for row in group])) for key, group in groupby(rows, _JOB)}


def new_point(key: int, point: PointRecord) -> Row:
    """A row of insert_points."""
    return (
        key,
        point.point,
        _json(point.params),
        point.run_id_suffix,
        None if point.labels is None else _json(point.labels),
    )


def point(row: reads.PointRow) -> PointRecord:
    """Read by the standard library: orjson turns large integers into floats."""
    labels = None if row.labels is None else json.loads(row.labels)
    return PointRecord(row.point, json.loads(row.params), row.run_id_suffix, labels)


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
        _json(spec.metrics),
        spec.goal_metric,
        spec.goal,
        spec.created_ms,
        ExperimentState.ACCEPTED.value,
    )


def new_plan(spec: NewExperiment) -> Row:
    """A row of insert_plan."""
    return (
        spec.experiment_id,
        spec.description,
        _json(spec.tags),
        None if spec.parameters is None else _json(spec.parameters),
        spec.traceparent,
        spec.plan,
        spec.base.decode(),
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
    )


def new_parked(event: ParkedEvent) -> Row:
    """A row of park."""
    return event.simulation_id, event.subject, event.seq, event.received_ms, event.data


def parked(row: reads.ParkedRow) -> ParkedEvent:
    return ParkedEvent(
        simulation_id=row.simulation_id,
        subject=row.subject,
        seq=row.seq,
        received_ms=row.received_ms,
        data=row.data,
    )


def completed_run(row: reads.DurationRow) -> CompletedRun:
    return CompletedRun(row.same_base == 1, row.model_version, row.seconds)


class StateCount:
    """Counts jobs by bucket and aggregates the tracked metrics of completed jobs, one job at a time."""

    def __init__(self, tracked: Sequence[str]) -> None:
        self.counts: dict[Bucket, int] = {}
        self.metrics = {name: Aggregate() for name in tracked}

    def add(self, row: reads.CountedRow | reads.PointJobRow) -> None:
        bucket = _BUCKETS[row.bucket]
        self.counts[bucket] = self.counts.get(bucket, 0) + 1
        if bucket is Bucket.COMPLETED and self.metrics:
            values = {} if row.metrics is None else orjson.loads(row.metrics)
            for metric, aggregate in self.metrics.items():
                self.metrics[metric] = aggregate.add(values.get(metric))


def point_row(record: PointRecord, jobs: Sequence[reads.PointJobRow], tracked: Sequence[str]) -> PointRow:
    """A point with counts and aggregates over its jobs."""
    count = StateCount(tracked)
    ends = []
    for row in jobs:
        count.add(row)
        ends.append(row.ended_seq)
    last = None if not ends else max((end for end in ends if end is not None), default=None)
    return PointRow(record, count.counts, count.metrics, None if None in ends else last)
