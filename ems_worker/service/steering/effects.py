"""What each verb does to a job: the decisions of the core, for the jobs that a request names."""

import json
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import job, tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import Change, PointRecord
from ems_worker.service.base import conditions
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.judging import Decide, Effect
from ems_worker.service.ledger.live import Live

# Why a job is excluded if the request gives no reason.
_EXCLUDED = "excluded"
_CANCELLED = Bucket.CANCELLED.value


def stop_reason(request: dict[str, Any]) -> StopReason:
    """Why a cancelled run is stopped."""
    return StopReason.STRAGGLER if request.get("stragglers") else StopReason.CANCELLED


def of(live: Live, change: Change) -> Decide:
    """The decision of a change about one job. Raises errors.RequestRefused if its condition can't be read."""
    request, verb = json.loads(change.request), Verb(change.verb)
    condition = conditions.read(request.get("where"), live.record.spec.parameters, change.language)
    decide = _DECISIONS[verb](request, None if condition is None else condition.names)

    def matching(before: Job, point: PointRecord, now_ms: int) -> Effect | None:
        if condition is not None and not condition.holds(
            point.params, point.labels or {}, conditions.facts(before.current)
        ):
            return None
        return decide(before, now_ms)

    return matching


def cancelled_all(live: Live, draft: Change) -> Change:
    """The change that cancels every job that hasn't ended, with the counts that it would have now."""
    change, drain = replace(draft, judged=None), bool(json.loads(draft.request).get("drain"))
    for bucket, jobs in live.recorded.by_bucket.items():
        fails = bucket is Bucket.AWAITING_METRICS and not drain
        if jobs and bucket not in tally.ENDED_BUCKETS:
            change = judging.counted(change, bucket.value, Bucket.FAILED.value if fails else _CANCELLED, jobs)
    return change


_Effect = Callable[[Job, int], Effect | None]


def _cancel(request: dict[str, Any], names: frozenset[str] | None) -> _Effect:
    reason, drain = stop_reason(request), bool(request.get("drain"))

    def decide(before: Job, now_ms: int) -> Effect | None:
        after = job.cancelled(before, now_ms, reason, drain=drain)
        if after is None:
            return None
        # A run that completed and waits for metrics ends without them.
        return Effect(after, _state(before), _state(after) if after.current.settled else _CANCELLED)

    return decide


def _retry(request: dict[str, Any], names: frozenset[str] | None) -> _Effect:
    def decide(before: Job, now_ms: int) -> Effect | None:
        after = job.again(before, now_ms, names)
        return None if after is None else Effect(after, _state(before), _state(after))

    return decide


def _exclude(request: dict[str, Any], names: frozenset[str] | None) -> _Effect:
    reason = request.get("reason") or _EXCLUDED

    def decide(before: Job, now_ms: int) -> Effect | None:
        after = job.excluded(before, reason)
        return None if after is None else Effect(after, _state(before), changes.EXCLUDED)

    return decide


def _include(request: dict[str, Any], names: frozenset[str] | None) -> _Effect:
    def decide(before: Job, now_ms: int) -> Effect | None:
        after = job.included(before)
        return None if after is None else Effect(after, changes.EXCLUDED, _state(after))

    return decide


_DECISIONS: dict[Verb, Callable[[dict[str, Any], frozenset[str] | None], _Effect]] = {
    Verb.CANCEL: _cancel,
    Verb.RETRY: _retry,
    Verb.EXCLUDE: _exclude,
    Verb.INCLUDE: _include,
}


def _state(judged: Job) -> str:
    return str(tally.job_state(judged.current))
