"""Changes that people ask for: each has an id, is recorded before its answer, and asked again gives the same one."""

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
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.queries import Handler, read

log = structlog.get_logger()

_CHUNK = 500
_NOT_YET = ("pause", "cancel", "extend", "close", "set")


class _Change(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    request_id: Annotated[str, Field(min_length=1, max_length=128)]
    experiment_id: str


class Control:
    """The handlers of changes, by verb."""

    def __init__(self, ledger: Ledger, manifest: Manifest, clock: Clock) -> None:
        self._ledger = ledger
        self._manifest = manifest
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()

    def handlers(self) -> Mapping[str, Handler]:
        async def not_yet(_: bytes) -> bytes:
            raise errors.RequestRefused(f"not supported yet: {', '.join(_NOT_YET)}")

        verbs = {"resume": self._resume, "retry": self._retry}
        changes = {verb: self._handler(verb, carry_out) for verb, carry_out in verbs.items()}
        return {**changes, **dict.fromkeys(_NOT_YET, not_yet)}

    async def finish(self) -> None:
        """Carries out what was recorded before a crash and not finished."""
        for live in list(self._ledger.experiments.values()):
            for request in await self._manifest.open_requests(live.key):
                await self._carry_out_retry(live, request)

    async def _resume(self, live: Live, change: _Change) -> bytes:
        """Goes on with an experiment that is held."""
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.RESUME]
        answer = self._answer(live, change, changed=to is not None, state=to or live.record.state)
        await self._ledger.change(live, self._request(live, "resume", change, answer), to)
        log.info("experiment.resumed", experiment_id=live.experiment_id)
        return answer

    async def _retry(self, live: Live, change: _Change) -> bytes:
        """Tries failed, lost and dropped jobs of an experiment once more, waits again for metrics that did not come."""
        if not await self._manifest.to_retry(live.key, (-1, -1), 1):
            answer = self._answer(live, change, changed=False, state=live.record.state, retried=0)
            await self._ledger.change(live, self._request(live, "retry", change, answer), None)
            return answer
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.REOPEN]
        request = self._request(live, "retry", change, None)
        live.reopening = True
        try:
            await self._ledger.change(live, request, to)
        except BaseException:
            live.reopening = False
            raise
        crash.point("control.recorded")
        return await self._carry_out_retry(live, request)

    async def _carry_out_retry(self, live: Live, request: ChangeRequest) -> bytes:
        live.reopening = True
        try:
            retried, after = 0, (-1, -1)
            while True:
                count, last = await self._ledger.retry(live.key, after, _CHUNK)
                retried += count
                if last is None:
                    break
                after = last
        finally:
            live.reopening = False
        crash.point("control.carried_out")
        change = _Change.model_validate_json(request.body)
        answer = self._answer(live, change, changed=True, state=live.record.state, retried=retried)
        await self._manifest.answer_request(request.request_id, answer.decode())
        crash.point("control.answered")
        log.info("experiment.retried", experiment_id=live.experiment_id, jobs=retried, round=live.record.round)
        await self._ledger.conclude(live)
        return answer

    def _handler(self, verb: str, carry_out: Callable[[Live, _Change], Awaitable[bytes]]) -> Handler:
        async def handle(data: bytes) -> bytes:
            change = read(_Change, data)
            # One after another: each decides by what the one before left.
            async with self._one_at_a_time, self._ledger.taken_up(change.experiment_id) as live:
                if live is None:
                    raise errors.NotFound(f"there is no experiment {change.experiment_id}")
                known = await self._known(verb, change)
                return await carry_out(live, change) if known is None else known

        return handle

    async def _known(self, verb: str, change: _Change) -> bytes | None:
        """The answer if this was asked before."""
        known = await self._manifest.request(change.request_id)
        if known is None:
            return None
        if (known.verb, known.body) != (verb, change.model_dump_json()):
            words = f"request_id {change.request_id} was used for another change; each change needs one of its own"
            raise errors.RequestRefused(words)
        if known.answer is None:
            raise errors.RequestRefused(f"request {change.request_id} is being carried out")
        return known.answer.encode()

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
