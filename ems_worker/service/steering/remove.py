"""Removes experiments that have ended, for `ems rm` and when they are older than the retention.

A removal is a change like any other: recorded before its reply, carried out once, published, and applied again after a
restore. From the moment of the reply no query finds the experiment; its rows are deleted after that, a part at a time.
Its id stays taken, so that neither the id nor its plan comes back.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, NoReturn

import pydantic
import structlog
from msgspec.structs import replace
from pydantic import Field

from ems_worker import errors, ticks
from ems_worker.core.documents import changes, documents
from ems_worker.core.documents.documents import Document
from ems_worker.core.lifecycle import experiment
from ems_worker.core.records import Change, Experiment
from ems_worker.service import queries
from ems_worker.service.base import crash, missing
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.locks import KeyedLocks
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.queries import Handler
from ems_worker.service.steering import requests
from ems_worker.service.steering.publisher import ChangePublisher

log = structlog.get_logger()

# How long a reply waits for the experiment's last results to be published, and for the broker.
_PATIENCE_SECONDS = 1.0
_LOOK_SECONDS = 0.05
# Rows that are deleted in one commit, in about ten milliseconds. Other writes come first between two of them.
_ROWS = 500
_PAUSE_SECONDS = 0.02
# How often old experiments are looked for, and how many are removed each time at most.
_EXPIRE_SECONDS = 600.0
_MANY = 1000


class RemoveRequest(pydantic.BaseModel):
    """Removes one experiment."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)

    request_id: requests.RequestId
    experiment_id: str
    reason: requests.Reason | None = None
    dry_run: bool = False
    expect_revision: Annotated[int, Field(ge=0)] | None = None


@dataclass(frozen=True, slots=True)
class Retention:
    """How long experiments are kept after their end; None: for ever.

    `export` writes the manifest file of an experiment, by its id and key; whether it is there then.
    """

    seconds: float | None
    export: Callable[[str, int], Awaitable[bool]]


class Remover:
    """Records removals and carries them out."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        publisher: ChangePublisher,
        clock: Clock,
        retention: Retention,
    ) -> None:
        self._retention = retention
        self._ledger = ledger
        self._manifest = manifest
        self._publisher = publisher
        self._clock = clock
        self._locks = KeyedLocks[str]()
        # Something may be left of an earlier worker's removals.
        self._wake = asyncio.Event()
        self._wake.set()

    def handlers(self) -> Mapping[str, Handler]:
        """The handler of the verb; it raises errors.NotFound or errors.RequestRefused."""
        return {changes.REMOVE: self._handle}

    async def _handle(self, data: bytes) -> bytes:
        return documents.encode(await self.remove(queries.read(RemoveRequest, data)))

    async def remove(self, request: RemoveRequest) -> Document:
        """Removes an experiment; returns the document of the change."""
        experiment_id = request.experiment_id
        async with self._locks.hold(experiment_id):
            change = await self._known(request)
            if change is None:
                draft = self._draft(await self._ended(request), request)
                if request.dry_run:
                    return changes.document(experiment_id, replace(draft, applied_ms=draft.received_ms))
                self._publisher.refuse_too_large(experiment_id, draft)
                change = await self._record(experiment_id, draft)
        await self._publisher.published(_PATIENCE_SECONDS)
        return changes.document(experiment_id, change)

    async def expire(self) -> int:
        """Removes experiments that ended longer ago than the retention, with a manifest file; returns how many."""
        if self._retention.seconds is None:
            return 0
        removed = 0
        before_ms = self._clock.now_ms() - int(self._retention.seconds * 1000)
        for key, experiment_id in await self._manifest.ended_before(before_ms, _MANY):
            reason = f"retention: it ended before {documents.timestamp(before_ms)}"
            if await self._retention.export(experiment_id, key):
                removed += await self._expire(experiment_id, reason)
        return removed

    async def _expire(self, experiment_id: str, reason: str) -> bool:
        """Removes an experiment that is older than the retention; whether that was possible."""
        request_id = f"{changes.RETENTION_REQUEST}{experiment_id}"
        request = RemoveRequest.model_construct(
            {"request_id", "experiment_id", "reason"}, request_id=request_id, experiment_id=experiment_id, reason=reason
        )
        try:
            await self.remove(request)
        except (errors.RequestRefused, errors.NotFound) as refused:
            log.info("experiment.kept", experiment_id=experiment_id, reason=str(refused))
            return False
        return True

    async def again(self, experiment_id: str, published: Mapping[str, Any], *, documents: int) -> bool:
        """Removes an experiment that was removed after the backup that was restored; whether it was there.

        `published`: the document of the change, and `documents`: how many of its documents were published. Raises
        KeyError, TypeError or ValueError if it isn't one of this worker's.
        """
        record = await self._manifest.experiment(experiment_id)
        if record is None:
            return False
        keys = {"experiment_id", "request_id", "reason"} & published["request"].keys()
        request = RemoveRequest.model_construct(keys, **{key: str(published["request"][key]) for key in keys})
        draft = replace(self._draft(record, request), published=documents)
        recorded = await self._ledger.remove(experiment_id, lambda: self._manifest.remove(draft), by_force=True)
        self._wake.set()
        return recorded is not None

    async def run(self) -> None:
        """Removes old experiments, and deletes what is left of removed ones, without end."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._purge_always())
            if self._retention.seconds is not None:
                group.create_task(self._expire_always())

    async def _expire_always(self) -> NoReturn:
        while True:
            await self.expire()
            await ticks.wait(_EXPIRE_SECONDS)

    async def _purge_always(self) -> NoReturn:
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self.purge()

    async def purge(self) -> None:
        """Deletes what is left of removed experiments."""
        for change in await self._manifest.open_removals():
            while await self._manifest.purge(change.experiment, _ROWS):
                crash.point("remove.purging")
                await asyncio.sleep(_PAUSE_SECONDS)
            await self._manifest.removal_done(replace(change, applied_ms=self._clock.now_ms()))
            self._publisher.news()
            experiment_id = await self._manifest.experiment_id(change.experiment)
            log.info("experiment.removed", experiment_id=experiment_id, request_id=change.request_id)

    async def _known(self, request: RemoveRequest) -> Change | None:
        """The change as recorded when this request first arrived; None if it is new."""
        known = await self._manifest.change_from(request.request_id, 0)
        if known is not None and (known.verb, known.request) != (changes.REMOVE, _encoded(request)):
            message = f"request_id {request.request_id} was used for another change: use a new id for each change"
            raise errors.RequestRefused(message)
        return known

    async def _ended(self, request: RemoveRequest) -> Experiment:
        """The experiment's record. Raises errors.NotFound, and errors.RequestRefused unless it has ended."""
        experiment_id = request.experiment_id
        live = self._ledger.live(experiment_id)
        record = await self._manifest.experiment(experiment_id) if live is None else live.record
        if record is None:
            raise await missing.experiment(self._manifest, experiment_id)
        if record.state not in experiment.ENDED:
            message = f"{experiment_id} is open ({record.state}): cancel it first, or wait until it has ended"
            raise errors.RequestRefused(message)
        if request.expect_revision not in (None, record.revision):
            now = f"{experiment_id} has revision {record.revision}, not {request.expect_revision}"
            raise errors.RequestRefused(f"expect_revision: {now}")
        return record

    def _draft(self, record: Experiment, request: RemoveRequest) -> Change:
        return Change(
            request_id=request.request_id,
            experiment=record.key,
            verb=changes.REMOVE,
            request=_encoded(request),
            received_ms=self._clock.now_ms(),
            state=record.state,
            round=record.round,
            revision=record.revision,
            judged=None,
        )

    async def _record(self, experiment_id: str, draft: Change) -> Change:
        """Removes the experiment once it isn't in memory any more: then all about it is published."""
        until = self._clock.monotonic() + _PATIENCE_SECONDS
        while True:
            recorded = await self._ledger.remove(experiment_id, lambda: self._manifest.remove(draft))
            if recorded is not None:
                crash.point("remove.recorded")
                log.info("experiment.change_recorded", experiment_id=experiment_id, verb=draft.verb,
                         request_id=draft.request_id, changed=True)  # fmt: skip
                self._wake.set()
                self._publisher.news()
                return recorded
            if self._clock.monotonic() >= until:
                message = f"{experiment_id} is in use: its last results are being published, or a change is under way"
                raise errors.RequestRefused(f"{message}. Repeat the request in a moment")
            await asyncio.sleep(_LOOK_SECONDS)


def _encoded(request: RemoveRequest) -> str:
    return documents.encode(json.loads(request.model_dump_json(exclude_unset=True))).decode()
