"""The documents that leave the worker: decisions, statuses and points. Results are in results.py.

Names and meanings are a contract with other programs, which must tolerate further keys.
"""

import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from ems_worker.core import text
from ems_worker.core.documents import titles
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.records import Experiment, PlanDecision, PointRow
from ems_worker.errors import Problem

Document = dict[str, Any]

_SHORT = frozenset({int, float, bool, type(None)})  # types of parameter values that are never too long
# A parameter value with longer JSON is replaced by its digest: a genome of 4,000 weights is in the plan already.
MAX_VALUE_BYTES = 4096
# Characters of a problem's path and message. A plan has at most a hundred problems, and a broker's message a megabyte.
MAX_PATH = 300
MAX_MESSAGE = 1000


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
    return f"{_second(seconds)}.{rest:03d}Z"


@functools.lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """A time without its fraction. Most times of a batch of results are within a few seconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()[:19]


def problem(given: Problem) -> Document:
    """One problem of a plan.

    Text quoted from the plan is cut, and characters that UTF-8 can't hold are replaced: every decision has to fit into
    a message.
    """
    document: Document = {
        "code": given.code,
        "path": text.clip(given.path, MAX_PATH) or "",
        "line": given.line,
        "column": given.column,
        "message": text.clip(given.message, MAX_MESSAGE) or "",
    }
    document |= {} if given.file is None else {"file": text.clip(given.file, MAX_PATH)}
    if given.suggestion is not None:
        document["suggestion"] = text.clip(given.suggestion, MAX_MESSAGE)
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
    """`ems.decision.v1`. Its `submission` is null if the plan was only validated."""
    return {
        "schema": titles.DECISION,
        "decision": decided.value,
        "experiment_id": experiment_id,
        "points": points,
        "jobs": jobs,
        "plan_sha": plan_sha,
        "errors": [problem(error) for error in errors],
        "warnings": [problem(warning) for warning in warnings],
        "submission": None if seq is None else {"stream": stream, "seq": seq},
    }


def repeated(accepted: bytes, stream: str, seq: int) -> Document:
    """`ems.decision.v1` of a duplicate, made from the decision that accepted the plan."""
    submission = {"stream": stream, "seq": seq}
    return {**json.loads(accepted), "decision": PlanDecision.DUPLICATE.value, "submission": submission}


def aggregate(values: Aggregate) -> Document:
    """n, mean, std, min, max, missing; null for what is unknown without a value, or overflows."""
    known = values.n > 0
    return {
        "n": values.n,
        "mean": values.mean if known and math.isfinite(values.mean) else None,
        "std": values.std if values.std is not None and math.isfinite(values.std) else None,
        "min": values.min if known else None,
        "max": values.max if known else None,
        "missing": values.missing,
    }


def shortened(params: Mapping[str, Any], max_bytes: int = MAX_VALUE_BYTES) -> Document:
    """Parameters; every text, list or mapping that has more bytes as JSON is replaced by its digest and size."""
    if _SHORT.issuperset(map(type, params.values())):
        return dict(params)
    short: Document = {}
    for name, value in params.items():
        if isinstance(value, (str, list, dict)) and len(data := encode(value)) > max_bytes:
            short[name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        else:
            short[name] = value
    return short


@dataclass(frozen=True, slots=True)
class Pace:
    """How many jobs end per second, and how many seconds are left at that rate; None if that is unknown."""

    throughput: float = 0.0
    eta_seconds: float | None = None


def pace(samples: Sequence[tuple[float, int]], remaining: int) -> Pace:
    """The pace from recent samples of (seconds, jobs ended so far), oldest first.

    A retry takes jobs back: only the samples since then count.
    """
    first = max((index for index in range(1, len(samples)) if samples[index][1] < samples[index - 1][1]), default=0)
    recent = samples[first:]
    if len(recent) < 2 or recent[-1][0] <= recent[0][0]:
        return Pace(eta_seconds=0.0 if remaining == 0 else None)
    rate = (recent[-1][1] - recent[0][1]) / (recent[-1][0] - recent[0][0])
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
    excluded: int = 0,
    underway: float = 0.0,
) -> Document:
    """`ems.status.v1`.

    `reason`: why the experiment is in its state, or why it makes no progress. `excluded`: how many jobs don't count.
    `underway`: what open runs have done, as jobs: the sum of their `share`.
    """
    spec = record.spec
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
        "progress": _progress(tally, underway),
        "throughput": round(pace.throughput, 3),
        "eta_seconds": None if pace.eta_seconds is None else round(pace.eta_seconds, 1),
        "created_at": timestamp(spec.created_ms),
        "started_at": timestamp(record.started_ms),
        "finished_at": timestamp(record.finished_ms),
        "updated_at": timestamp(now_ms),
        "worker_id": worker_id,
        "metrics": {name: aggregate(values) for name, values in tally.metrics.items()},
        "best": None if best is None else best_point(record, best),
        "pauses": sorted(owner.value for owner in record.pauses),
        "cancelling": None if record.cancel is None or record.state in experiment.ENDED else record.cancel.value,
        "kept_open": record.kept_open,
        "settled": record.settled_round == record.round,
        "excluded": excluded,
        "reason": reason,
    }


def share(step: float | None, total: float | None) -> float:
    """How much of an open run is done, 0 to 1, by what it last reported; 0 if it reported nothing."""
    if step is None or total is None or total <= 0:
        return 0.0
    return min(1.0, max(0.0, step / total))


def _progress(tally: Tally, underway: float) -> float:
    """The share of the work that is done: jobs that ended, and of open runs the share that they reported."""
    if tally.ended >= tally.total:
        return 1.0
    return min(tally.ended + underway, tally.total) / tally.total


def settled(
    record: Experiment,
    tally: Tally,
    *,
    by_quorum: bool,
    ended_seq: int,
    now_ms: int,
    best: PointRow | None = None,
    excluded: int = 0,
) -> Document:
    """`ems.settled.v1`: enough jobs of a round have ended (`by_quorum`), or all have.

    `ended_seq`: the results up to this position belong to it.
    """
    return {
        "schema": titles.SETTLED,
        "experiment_id": record.spec.experiment_id,
        "experiment_name": record.spec.name,
        "group": record.spec.group,
        "round": record.round,
        "reason": "quorum" if by_quorum else "ended",
        "counts": {name.value: count for name, count in tally.by_bucket.items()},
        "total": tally.total,
        "stragglers": tally.total - tally.ended,
        "excluded": excluded,
        "ended_seq": ended_seq,
        "metrics": {name: aggregate(values) for name, values in tally.metrics.items()},
        "best": None if best is None else best_point(record, best),
        "settled_at": timestamp(now_ms),
    }


def best_point(record: Experiment, row: PointRow) -> Document | None:
    """The best point so far, by the mean of the metric that has a goal."""
    metric = record.spec.goal_metric
    if metric is None or metric not in row.metrics or row.metrics[metric].n == 0:
        return None
    values = row.metrics[metric]
    return {
        "point": row.point.point,
        "params": shortened(row.point.params),
        "metric": metric,
        "goal": record.spec.goal,
        "mean": values.mean,
        "std": values.std,
        "n": values.n,
    }


def better(goal: str | None, metric: str | None, leader: PointRow | None, challenger: PointRow) -> PointRow | None:
    """The better of two points by the mean of `metric`; the earlier point if they are equal."""
    if metric is None or metric not in challenger.metrics or challenger.metrics[metric].n == 0:
        return leader
    if leader is None or leader.point.point == challenger.point.point:
        return challenger
    old, new = leader.metrics[metric].mean, challenger.metrics[metric].mean
    if old == new:
        return leader if leader.point.point < challenger.point.point else challenger
    return leader if (old < new) == (goal == "minimize") else challenger


def point(experiment_id: str, row: PointRow) -> Document:
    """`ems.point.v1`: a point with counts and aggregates over its jobs.

    The highest `revision` is the valid one; of equal ones, which differ in jobs that never started, it is the last.
    """
    return {
        "schema": titles.POINT,
        "experiment_id": experiment_id,
        "point": row.point.point,
        "run_id_suffix": row.point.run_id_suffix,
        "labels": dict(row.point.labels or {}),
        "params": shortened(row.point.params),
        "counts": {name.value: row.counts.get(name, 0) for name in Bucket},
        "metrics": {name: aggregate(values) for name, values in row.metrics.items()},
        "excluded": row.excluded,
        "ended": row.ended_seq is not None,
        "revision": row.ended_seq or 0,
    }
