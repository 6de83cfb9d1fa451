"""Values of the core to rows of the manifest, and back. JSON is compact; digests are stored as 32 bytes.

What is read comes with the names of its columns (reads.py). A row that is written has its values in the order in which
its statement in writes.sql names them.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Any, Final

import orjson
from msgspec.structs import replace

from ems_worker.adapters.manifest import due_reads, reads
from ems_worker.core.documents import documents
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import ParkedEvent, PointRecord

Row = tuple[Any, ...]

# Looking a member up by calling its enumeration is several times slower than a dictionary, and happens for every row.
_STATES = {state.value: state for state in RunState}
_KINDS = {kind.value: kind for kind in ErrorKind}
_STOPS = {reason.value: reason for reason in StopReason}
_WAITING = {waiting.value: waiting for waiting in Waiting}

_JOB = attrgetter("experiment", "point", "replicate")


@dataclass(frozen=True, slots=True)
class Narrow:
    """A statement that writes only some columns. `of`: the second run with these columns of the first."""

    statement: str
    of: Callable[[Run, Run], Run]
    values: Callable[[Run], Row]


# By the state to which they lead, statements for the steps of a run without anything unusual: most columns stay.
NARROW: Final[Mapping[RunState, Narrow]] = {
    RunState.SUBMITTING: Narrow(
        "claim_runs",
        lambda new, old: replace(old, state=new.state, submitted_ms=new.submitted_ms, config_sha=new.config_sha),
        lambda new: (new.state.value, new.submitted_ms, _digest(new.config_sha)),
    ),
    RunState.SUBMITTED: Narrow(
        "accept_runs", lambda new, old: replace(old, state=new.state), lambda new: (new.state.value,)
    ),
    RunState.COMPLETED: Narrow(
        "complete_runs",
        lambda new, old: replace(
            old,
            state=new.state,
            started_ms=new.started_ms,
            finished_ms=new.finished_ms,
            metrics=new.metrics,
            artifacts=new.artifacts,
            model_version=new.model_version,
            host=new.host,
            slot=new.slot,
            ended_seq=new.ended_seq,
            job_revision=new.job_revision,
        ),
        lambda new: (
            new.state.value,
            new.started_ms,
            new.finished_ms,
            _maybe_json(new.metrics),
            _maybe_json(new.artifacts),
            new.model_version,
            new.host,
            new.slot,
            new.ended_seq,
            new.job_revision,
        ),
    ),
}


def to_json(value: Any) -> str:
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


def new_pending(key: int, run: Run) -> Row:
    """A row of insert_pending."""
    return key, run.point, run.replicate, run.attempt, run.seed, run.due_ms


def update(key: int, before: Run, after: Run) -> tuple[str, Row]:
    """The statement that writes what has changed of an attempt, and its row for it."""
    narrow = NARROW.get(after.state)
    if narrow is not None and narrow.of(after, before) == after:
        return narrow.statement, (
            key,
            after.point,
            after.replicate,
            after.attempt,
            before.state.value,
            *narrow.values(after),
        )
    return "update_runs", changed_run(key, before, after)


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


def _digest(sha: str | None) -> bytes | None:
    return None if sha is None else bytes.fromhex(sha)


def _maybe_json(value: Mapping[str, Any] | None) -> str | None:
    return None if value is None else to_json(value)


def _outcome(run: Run) -> Row:
    return (
        None if run.stop_reason is None else run.stop_reason.value,
        None if run.error_kind is None else run.error_kind.value,
        run.error_message,
        run.retryable,
        _maybe_json(run.metrics),
        _maybe_json(run.artifacts),
        None if run.waiting is None else run.waiting.value,
        run.model_version,
        _digest(run.config_sha),
        run.ended_seq,
        run.job_revision,
        run.drains,
        run.suspended,
        run.host,
        run.slot,
        run.step,
        run.total,
        run.excluded,
    )


def new_job(row: due_reads.DueRow | due_reads.DueOfRow) -> Job:
    """A job whose first run is as it was created."""
    return Job((Run(row.point, row.replicate, 1, row.seed, due_ms=row.due_ms),))


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
        drains=row.drains == 1,
        suspended=row.suspended == 1,
        host=row.host,
        slot=row.slot,
        step=row.step,
        total=row.total,
        excluded=row.excluded,
    )


def jobs(rows: Iterable[reads.RunRow]) -> dict[tuple[int, int, int], Job]:
    """Jobs by (experiment key, point, replicate), from rows that have each job's attempts together and in order."""
    return {key: Job(tuple([run(row) for row in group])) for key, group in groupby(rows, _JOB)}


def new_point(key: int, point: PointRecord) -> Row:
    """A row of insert_points."""
    return (
        key,
        point.point,
        to_json(point.params),
        point.run_id_suffix,
        None if point.labels is None else to_json(point.labels),
    )


def point(row: reads.PointRow | due_reads.PointOfRow) -> PointRecord:
    """Read by the standard library: orjson turns large integers into floats."""
    labels = None if row.labels is None else json.loads(row.labels)
    return PointRecord(row.point, json.loads(row.params), row.run_id_suffix, labels)


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
