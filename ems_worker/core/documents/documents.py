"""The documents that leave the worker, built from values: decisions, status, results, points.

Names and meanings are the platform's contract; readers must tolerate further keys.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from ems_worker.core import ids, text
from ems_worker.core.documents import titles
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import Aggregate, Bucket, Tally
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.records import Experiment, JobRow, PlanDecision, PointRecord, PointRow
from ems_worker.errors import Problem

Document = dict[str, Any]

# Parameter values with longer JSON leave as their digest: a genome of 4,000 weights is in the plan already.
LARGEST_VALUE_BYTES = 4096
# Characters of a problem's path and words. A plan has a hundred problems at most, and a broker's message a megabyte.
LONGEST_PATH = 300
LONGEST_PROBLEM = 1000


def encode(document: Any) -> bytes:
    """Compact JSON of a document whose numbers are finite, which `sanitize` and the reading of plans see to.

    orjson takes no integers of more than 64 bits. Only parameters have them, rarely; the standard library is slower.
    """
    try:
        return orjson.dumps(document)
    except TypeError:
        return json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def timestamp(milliseconds: int | None) -> str | None:
    """RFC 3339 in UTC with milliseconds."""
    if milliseconds is None:
        return None
    seconds, rest = divmod(milliseconds, 1000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def problem(one: Problem) -> Document:
    """One problem of a plan.

    What it quotes is cut, and without what UTF-8 can't hold: a decision has to fit into a message in any case.
    """
    document: Document = {
        "code": one.code,
        "path": text.clip(one.path, LONGEST_PATH) or "",
        "line": one.line,
        "column": one.column,
        "message": text.clip(one.message, LONGEST_PROBLEM) or "",
    }
    if one.suggestion is not None:
        document["suggestion"] = text.clip(one.suggestion, LONGEST_PROBLEM)
    return document


def decision(
    decided: PlanDecision,
    *,
    experiment_id: str | None = None,
    points: int | None = None,
    jobs: int | None = None,
    plan_sha: str | None = None,
    errors: Sequence[Problem] = (),
    warnings: Sequence[Problem] = (),
    stream: str | None = None,
    seq: int | None = None,
) -> Document:
    """`ems.decision.v1`. `submission` is null where the plan was only validated."""
    return {
        "schema": titles.DECISION,
        "decision": decided.value,
        "experiment_id": experiment_id,
        "points": points,
        "jobs": jobs,
        "plan_sha": plan_sha,
        "errors": [problem(one) for one in errors],
        "warnings": [problem(one) for one in warnings],
        "submission": None if seq is None else {"stream": stream, "seq": seq},
    }


def repeated(accepted: bytes, stream: str, seq: int) -> Document:
    """`ems.decision.v1` of a duplicate, from the document that accepted the plan."""
    submission = {"stream": stream, "seq": seq}
    return {**json.loads(accepted), "decision": PlanDecision.DUPLICATE.value, "submission": submission}


def aggregate(one: Aggregate) -> Document:
    """n, mean, std, min, max, missing; null for what no value stands behind, or what overflows."""
    known = one.n > 0
    return {
        "n": one.n,
        "mean": one.mean if known and math.isfinite(one.mean) else None,
        "std": one.std if one.std is not None and math.isfinite(one.std) else None,
        "min": one.min if known else None,
        "max": one.max if known else None,
        "missing": one.missing,
    }


def shortened(params: Mapping[str, Any], longest: int = LARGEST_VALUE_BYTES) -> Document:
    """Parameters with every text, list and mapping of more bytes of JSON replaced by its digest and size."""
    short: Document = {}
    for name, value in params.items():
        if isinstance(value, (str, list, dict)) and len(data := encode(value)) > longest:
            short[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        else:
            short[name] = value
    return short


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast jobs end: per second, and the seconds that are left at that rate; None where it can't be told."""

    throughput: float = 0.0
    eta_seconds: float | None = None


def pace(samples: Sequence[tuple[float, int]], remaining: int) -> Pace:
    """From (seconds, jobs ended so far) samples of the recent past, oldest first."""
    if len(samples) < 2 or samples[-1][0] <= samples[0][0]:
        return Pace(eta_seconds=0.0 if remaining == 0 else None)
    rate = (samples[-1][1] - samples[0][1]) / (samples[-1][0] - samples[0][0])
    if remaining == 0:
        return Pace(rate, 0.0)
    return Pace(rate, remaining / rate if rate > 0 else None)


def status(
    record: Experiment,
    tally: Tally,
    *,
    worker_id: str,
    now_ms: int,
    pace: Pace,
    best: PointRow | None = None,
    reason: str | None = None,
) -> Document:
    """`ems.status.v1`. `reason`: why it is in its state, or doesn't get on."""
    spec = record.spec
    ended = tally.ended
    return {
        "schema": titles.STATUS,
        "experiment_id": spec.experiment_id,
        "experiment_name": spec.name,
        "group": spec.group,
        "tags": list(spec.tags),
        "state": record.state.value,
        "round": record.round,
        "revision": record.revision,
        "counts": {name.value: count for name, count in tally.by_bucket.items()},
        "total": tally.total,
        "progress": ended / tally.total if tally.total else 1.0,
        "throughput": round(pace.throughput, 3),
        "eta_seconds": None if pace.eta_seconds is None else round(pace.eta_seconds, 1),
        "created_at": timestamp(spec.created_ms),
        "started_at": timestamp(record.started_ms),
        "finished_at": timestamp(record.finished_ms),
        "updated_at": timestamp(now_ms),
        "worker_id": worker_id,
        "metrics": {name: aggregate(one) for name, one in tally.metrics.items()},
        "best": None if best is None else best_point(record, best),
        "reason": reason,
    }


def best_point(record: Experiment, row: PointRow) -> Document | None:
    """The point that leads, by the mean of the metric that has a goal."""
    metric = record.spec.goal_metric
    if metric is None or metric not in row.metrics or row.metrics[metric].n == 0:
        return None
    leader = row.metrics[metric]
    return {
        "point": row.point.point,
        "params": shortened(row.point.params),
        "metric": metric,
        "goal": record.spec.goal,
        "mean": leader.mean,
        "std": leader.std,
        "n": leader.n,
    }


def better(spec_goal: str | None, metric: str | None, one: PointRow | None, other: PointRow) -> PointRow | None:
    """The better of two points by the mean of `metric`; the earlier point where they are equal."""
    if metric is None or metric not in other.metrics or other.metrics[metric].n == 0:
        return one
    if one is None or one.point.point == other.point.point:
        return other
    mine, theirs = one.metrics[metric].mean, other.metrics[metric].mean
    if mine == theirs:
        return one if one.point.point < other.point.point else other
    return one if (mine < theirs) == (spec_goal == "minimize") else other


def _point(point: PointRecord, whole: bool = False) -> Document:
    return {
        "point": point.point,
        "run_id_suffix": point.run_id_suffix,
        "labels": dict(point.labels or {}),
        "params": dict(point.params) if whole else shortened(point.params),
    }


def point(experiment_id: str, row: PointRow) -> Document:
    """`ems.point.v1`: a point with counts and aggregates over its replicates; the highest `revision` stands."""
    return {
        "schema": titles.POINT,
        "experiment_id": experiment_id,
        **_point(row.point),
        "counts": {name.value: row.counts.get(name, 0) for name in Bucket},
        "metrics": {name: aggregate(one) for name, one in row.metrics.items()},
        "ended": row.ended_seq is not None,
        "revision": row.ended_seq or 0,
    }


def result(experiment_id: str, row: JobRow, whole: bool = False) -> Document:
    """`ems.result.v1`: a job by the attempt that stands for it; the highest `job_revision` stands.

    Long parameter values are shortened unless `whole`.
    """
    run = row.run
    return {
        "schema": titles.RESULT,
        "experiment_id": experiment_id,
        "simulation_id": ids.simulation_id(experiment_id, run.point, run.replicate, run.attempt),
        "replicate": run.replicate,
        "attempt": run.attempt,
        **_point(row.point, whole),
        "seed": run.seed,
        "state": experiment.job_state(run),
        "metrics": None if run.metrics is None else dict(run.metrics),
        "artifacts": dict(run.artifacts or {}),
        "error": _error(run),
        "config_sha": run.config_sha,
        "model_version": run.model_version,
        "submitted_at": timestamp(run.submitted_ms),
        "started_at": timestamp(run.started_ms),
        "finished_at": timestamp(run.finished_ms),
        "job_revision": run.job_revision,
        "seq": run.ended_seq,
    }


def _error(run: Run) -> Document | None:
    if run.waiting is Waiting.MISSING:
        return {"kind": ErrorKind.METRICS_MISSING, "message": "metrics that the plan tracks did not come in time"}
    if run.error_kind is None and run.error_message is None:
        return None
    return {"kind": run.error_kind, "message": run.error_message}


def line(result: Document) -> Document:
    """A result as a flat line for tables: `param.*`, `metric.*`, `label.*` and `artifact.*` beside the plain fields."""
    flat: Document = {name: value for name, value in result.items() if name not in (*_NESTED, "schema", "error")}
    error = result["error"] or {}
    flat["error_kind"], flat["error_message"] = error.get("kind"), error.get("message")
    for field, prefix in _NESTED.items():
        flat.update({f"{prefix}.{name}": value for name, value in (result[field] or {}).items()})
    return flat


_NESTED = {"params": "param", "metrics": "metric", "labels": "label", "artifacts": "artifact"}
