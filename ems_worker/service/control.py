"""Changes that people ask for: each has an id, is recorded before its answer, and asked again gives the same one."""

from collections.abc import Mapping
from typing import Annotated

import pydantic
import structlog
from pydantic import Field

from ems_worker import errors
from ems_worker.core import documents, experiment
from ems_worker.core.experiment import ExperimentEvent, ExperimentState
from ems_worker.core.records import ChangeRequest
from ems_worker.service.clock import Clock
from ems_worker.service.ledger import Ledger
from ems_worker.service.live import Live
from ems_worker.service.ports import Manifest
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

    def handlers(self) -> Mapping[str, Handler]:
        async def not_yet(_: bytes) -> bytes:
            raise errors.RequestRefused(f"not supported yet: {', '.join(_NOT_YET)}")

        return {"resume": self._resume, "retry": self._retry, **dict.fromkeys(_NOT_YET, not_yet)}

    async def finish(self) -> None:
        """Carries out what was recorded before a crash and not finished."""
        for live in list(self._ledger.experiments.values()):
            for request in await self._manifest.open_requests(live.key):
                await self._carry_out_retry(live, request)

    async def _resume(self, data: bytes) -> bytes:
        """Goes on with an experiment that is held."""
        change = read(_Change, data)
        live, known = await self._begin("resume", change)
        if known is not None:
            return known
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.RESUME]
        answer = self._answer(live, change, changed=to is not None, state=to or live.record.state)
        await self._ledger.change(live, self._request("resume", change, answer), to)
        log.info("experiment.resumed", experiment_id=live.experiment_id)
        return answer

    async def _retry(self, data: bytes) -> bytes:
        """Tries the failed and lost jobs of an experiment once more, and waits again for metrics that did not come."""
        change = read(_Change, data)
        live, known = await self._begin("retry", change)
        if known is not None:
            return known
        if not await self._manifest.to_retry(live.key, (-1, -1), 1):
            answer = self._answer(live, change, changed=False, state=live.record.state, retried=0)
            await self._ledger.change(live, self._request("retry", change, answer), None)
            return answer
        to = experiment.TRANSITIONS[live.record.state, ExperimentEvent.REOPEN]
        live.reopening = True
        request = self._request("retry", change, None)
        await self._ledger.change(live, request, to)
        return await self._carry_out_retry(live, request)

    async def _carry_out_retry(self, live: Live, request: ChangeRequest) -> bytes:
        live.reopening = True
        try:
            retried, after = 0, (-1, -1)
            while jobs := await self._manifest.to_retry(live.key, after, _CHUNK):
                retried += await self._ledger.retry(live.key, jobs)
                after = jobs[-1].key
        finally:
            live.reopening = False
        change = _Change.model_validate_json(request.body)
        answer = self._answer(live, change, changed=True, state=live.record.state, retried=retried)
        await self._manifest.answer_request(request.request_id, answer.decode())
        log.info("experiment.retried", experiment_id=live.experiment_id, jobs=retried, round=live.record.round)
        await self._ledger.conclude(live)
        return answer

    async def _begin(self, verb: str, change: _Change) -> tuple[Live, bytes | None]:
        """The experiment, and the answer if this was asked before."""
        live = await self._ledger.take_up(change.experiment_id)
        if live is None:
            raise errors.NotFound(f"there is no experiment {change.experiment_id}")
        known = await self._manifest.request(change.request_id)
        if known is None:
            return live, None
        if (known.verb, known.body) != (verb, change.model_dump_json()):
            words = f"request_id {change.request_id} was used for another change; each change needs one of its own"
            raise errors.RequestRefused(words)
        if known.answer is None:
            raise errors.RequestRefused(f"request {change.request_id} is being carried out")
        return live, known.answer.encode()

    def _request(self, verb: str, change: _Change, answer: bytes | None) -> ChangeRequest:
        live = self._ledger.live(change.experiment_id)
        assert live is not None
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
            "schema": "ems.change.v1",
            "request_id": change.request_id,
            "experiment_id": change.experiment_id,
            "changed": changed,
            "state": state.value,
            "round": live.record.round,
        }
        if retried is not None:
            document["retried"] = retried
        return documents.encode(document)
