"""What each verb does to a job: the decisions of the core, for the jobs that a request names."""

import json
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import changes
from ems_worker.core.language import quotes, version
from ems_worker.core.language import where as language
from ems_worker.core.language.expressions import ExpressionError
from ems_worker.core.language.where import Facts, Where
from ems_worker.core.lifecycle import job, tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import Change, PointRecord
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.judging import Decide, Effect
from ems_worker.service.ledger.live import Live

# Why a job is excluded if the request gives no reason.
_EXCLUDED = "excluded"
_CANCELLED = Bucket.CANCELLED.value


def read_where(live: Live, text: str | None, written_in: int) -> Where | None:
    """The condition of a request, in this version of the plan language.

    Raises errors.RequestRefused with the reason and the nearest name, or if this worker may read it in another way.
    """
    if text is None:
        return None
    if written_in > version.VERSION or version.changes_expressions(written_in):
        raise errors.RequestRefused(
            f"where: {quotes.brief(text)} was requested under version {written_in} of the plan language, and this "
            f"worker's version {version.VERSION} may read it in another way: request again what is still to be done"
        )
    try:
        return language.read(text, dict(live.record.spec.parameters or {}))
    except ExpressionError as error:
        hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
        raise errors.RequestRefused(f"where: {error}{hint}") from None


def stop_reason(request: dict[str, Any]) -> StopReason:
    """Why a cancelled run is stopped."""
    return StopReason.STRAGGLER if request.get("stragglers") else StopReason.CANCELLED


def of(live: Live, change: Change) -> Decide:
    """The decision of a change about one job. Raises errors.RequestRefused if its condition can't be read."""
    request, verb = json.loads(change.request), Verb(change.verb)
    condition = read_where(live, request.get("where"), change.language)
    decide = _DECISIONS[verb](request, None if condition is None else condition.names)

    def matching(before: Job, point: PointRecord, now_ms: int) -> Effect | None:
        if condition is not None and not condition.holds(point.params, point.labels or {}, facts(before)):
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


def facts(judged: Job) -> Facts:
    """What a condition may use of a job, besides its point."""
    current = judged.current
    return Facts(
        state=str(tally.job_state(current)),
        error_kind=job.error_kind(current),
        point=current.point,
        replicate=current.replicate,
        attempt=current.attempt,
        host=current.host,
    )


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
