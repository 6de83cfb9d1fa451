"""Changes that people request, by verb.

Each request has an id and is recorded before its reply. A repeated request gets the same reply.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Annotated

import pydantic
import structlog
from pydantic import Field

from ems_worker import errors
from ems_worker.core.documents import documents, titles
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentEvent
from ems_worker.core.records import Change
from ems_worker.service import queries
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.queries import Handler

log = structlog.get_logger()

# Jobs that a retry reopens in one transaction.
_CHUNK = 500


class _Change(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    experiment_id: str


class Control:
    """Carries out change requests, one after another: each depends on what the one before changed."""

    def __init__(self, ledger: Ledger, manifest: Manifest, clock: Clock) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._clock = clock
        self._lock = asyncio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by verb; they raise errors.NotFound or errors.RequestRefused."""
        verbs = {"resume": self._resume, "retry": self._retry}
        return {verb: self._handler(verb, carry_out) for verb, carry_out in verbs.items()}

    async def finish(self) -> None:
        """Carries out the requests that an earlier worker recorded and did not finish."""
        for live in self._ledger.experiments():
            for change in await self._manifest.open_changes(live.key):
                await self._carry_out_retry(live, change)

    async def _resume(self, live: Live, request: _Change) -> bytes:
        """Resumes a paused experiment."""
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.RESUME]
        recorded = self._change(live, "resume", request, changed=to is not None, applied=True)
        recorded = replace(recorded, state=to or live.record.state)
        await self._ledger.records.change(live, recorded, to)
        log.info("experiment.resumed", experiment_id=live.experiment_id)
        return _answer(live, recorded)

    async def _retry(self, live: Live, request: _Change) -> bytes:
        """Retries the experiment's failed, lost and dropped jobs, and waits again for metrics that did not arrive."""
        if not await self._manifest.to_retry(live.key, (-1, -1), 1):
            nothing = self._change(live, "retry", request, changed=False, applied=True)
            await self._ledger.records.change(live, nothing, None)
            return _answer(live, nothing)
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.REOPEN]
        change = self._change(live, "retry", request, changed=True, applied=False)
        change = await self._ledger.records.change(live, change, to)
        crash.point("control.recorded")
        return await self._carry_out_retry(live, change)

    async def _carry_out_retry(self, live: Live, change: Change) -> bytes:
        retried, after = 0, (-1, -1)
        while True:
            count, last = await self._ledger.retry(live.key, after, _CHUNK)
            retried += count
            if last is None:
                break
            after = last
        crash.point("control.carried_out")
        applied = replace(
            change,
            state=live.record.state,
            round=live.record.round,
            judged=None,
            counts={"ended": {"pending": retried}},
            applied_ms=self._clock.now_ms(),
        )
        await self._ledger.records.applied(live, applied)
        crash.point("control.answered")
        log.info("experiment.retried", experiment_id=live.experiment_id, jobs=retried, round=live.record.round)
        await self._ledger.records.conclude(live)
        return _answer(live, applied)

    def _handler(self, verb: str, carry_out: Callable[[Live, _Change], Awaitable[bytes]]) -> Handler:
        async def handle(data: bytes) -> bytes:
            request = queries.read(_Change, data)
            async with self._lock, self._ledger.pinned(request.experiment_id) as live:
                if live is None:
                    raise errors.NotFound(f"there is no experiment {request.experiment_id}")
                recorded = await self._recorded(verb, request)
                if recorded is None:
                    return await carry_out(live, request)
                if recorded.applied_ms is None:
                    # Carrying it out failed. Only a retry is recorded before it is applied.
                    return await self._carry_out_retry(live, recorded)
                return _answer(live, recorded)

        return handle

    async def _recorded(self, verb: str, request: _Change) -> Change | None:
        """The change as recorded when its request first arrived; None if it is new."""
        recorded = next(iter(await self._manifest.changes(request.request_id)), None)
        if recorded is not None and (recorded.verb, recorded.request) != (verb, request.model_dump_json()):
            message = f"request_id {request.request_id} was used for another change: use a new id for each change"
            raise errors.RequestRefused(message)
        return recorded

    def _change(self, live: Live, verb: str, request: _Change, *, changed: bool, applied: bool) -> Change:
        """A change that is about to be recorded; one that is applied at once judges no jobs."""
        now_ms = self._clock.now_ms()
        return Change(
            request.request_id,
            live.key,
            verb,
            request.model_dump_json(),
            now_ms,
            live.record.state,
            live.record.round,
            live.record.revision,
            changed=changed,
            judged=None if applied else (-1, -1),
            applied_ms=now_ms if applied else None,
        )


def _answer(live: Live, change: Change) -> bytes:
    document: documents.Document = {
        "schema": titles.CHANGE,
        "request_id": change.request_id,
        "experiment_id": live.experiment_id,
        "changed": change.changed,
        "state": change.state.value,
        "round": change.round,
    }
    if change.verb == "retry":
        document["retried"] = sum(sum(to.values()) for to in change.counts.values())
    return documents.encode(document)
