"""Changes that people request, by verb.

Each request has an id and is recorded before its reply. A repeated request gets the same reply.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated

import pydantic
import structlog
from pydantic import Field

from ems_worker import errors
from ems_worker.core.documents import documents, titles
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentEvent, ExperimentState
from ems_worker.core.records import ChangeRequest
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
            for request in await self._manifest.open_requests(live.key):
                await self._carry_out_retry(live, request)

    async def _resume(self, live: Live, change: _Change) -> bytes:
        """Resumes a paused experiment."""
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.RESUME]
        answer = self._answer(live, change, changed=to is not None, state=to or live.record.state)
        await self._ledger.records.request(live, self._request(live, "resume", change, answer), to)
        log.info("experiment.resumed", experiment_id=live.experiment_id)
        return answer

    async def _retry(self, live: Live, change: _Change) -> bytes:
        """Retries the experiment's failed, lost and dropped jobs, and waits again for metrics that did not arrive."""
        if not await self._manifest.to_retry(live.key, (-1, -1), 1):
            answer = self._answer(live, change, changed=False, state=live.record.state, retried=0)
            await self._ledger.records.request(live, self._request(live, "retry", change, answer), None)
            return answer
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.REOPEN]
        request = self._request(live, "retry", change, None)
        await self._ledger.records.request(live, request, to)
        crash.point("control.recorded")
        return await self._carry_out_retry(live, request)

    async def _carry_out_retry(self, live: Live, request: ChangeRequest) -> bytes:
        retried, after = 0, (-1, -1)
        while True:
            count, last = await self._ledger.retry(live.key, after, _CHUNK)
            retried += count
            if last is None:
                break
            after = last
        crash.point("control.carried_out")
        change = _Change.model_validate_json(request.body)
        answer = self._answer(live, change, changed=True, state=live.record.state, retried=retried)
        await self._ledger.records.answer(live, request.request_id, answer.decode())
        crash.point("control.answered")
        log.info("experiment.retried", experiment_id=live.experiment_id, jobs=retried, round=live.record.round)
        await self._ledger.records.conclude(live)
        return answer

    def _handler(self, verb: str, carry_out: Callable[[Live, _Change], Awaitable[bytes]]) -> Handler:
        async def handle(data: bytes) -> bytes:
            change = queries.read(_Change, data)
            async with self._lock, self._ledger.pinned(change.experiment_id) as live:
                if live is None:
                    raise errors.NotFound(f"there is no experiment {change.experiment_id}")
                recorded = await self._recorded(verb, change)
                if recorded is None:
                    return await carry_out(live, change)
                if recorded.answer is None:
                    # Carrying it out failed. Only a retry is recorded before its answer.
                    return await self._carry_out_retry(live, recorded)
                return recorded.answer.encode()

        return handle

    async def _recorded(self, verb: str, change: _Change) -> ChangeRequest | None:
        """The request as recorded when it first arrived; None if it is new."""
        recorded = await self._manifest.request(change.request_id)
        if recorded is not None and (recorded.verb, recorded.body) != (verb, change.model_dump_json()):
            message = f"request_id {change.request_id} was used for another change: use a new id for each change"
            raise errors.RequestRefused(message)
        return recorded

    def _request(self, live: Live, verb: str, change: _Change, answer: bytes | None) -> ChangeRequest:
        return ChangeRequest(
            change.request_id,
            live.key,
            verb,
            change.model_dump_json(),
            self._clock.now_ms(),
            None if answer is None else answer.decode(),
        )

    def _answer(
        self, live: Live, change: _Change, *, changed: bool, state: ExperimentState, retried: int | None = None
    ) -> bytes:
        document: documents.Document = {
            "schema": titles.CHANGE,
            "request_id": change.request_id,
            "experiment_id": change.experiment_id,
            "changed": changed,
            "state": state.value,
            "round": live.record.round,
        }
        if retried is not None:
            document["retried"] = retried
        return documents.encode(document)
