"""Publishes the documents of changes: one when a change is recorded, and one when it is applied."""

import asyncio
import contextlib
import hashlib
from typing import NoReturn

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import changes, documents, subjects
from ems_worker.core.records import Change
from ems_worker.service.base import crash
from ems_worker.service.base.ports import Broker, Manifest

log = structlog.get_logger()

# How often the broker is tried again.
_PUBLISH_SECONDS = 1.0
# How long a reply waits at most for the broker alone.
_PUBLISH_PATIENCE_SECONDS = 0.5
# Bytes that are left for counts, which grow until the document is published for the last time.
_COUNTS_BYTES = 2048


class ChangePublisher:
    """Publishes what the manifest has of changes and isn't published yet; a broker that is away is tried again."""

    def __init__(self, manifest: Manifest, broker: Broker) -> None:
        self._manifest = manifest
        self._broker = broker
        self._publishing = asyncio.Lock()
        # Whether a change may have a document that isn't published, as may be after a start.
        self._unpublished = True
        # Set whenever there is something new to publish, or to publish once more.
        self._news = asyncio.Event()
        self._news.set()

    def news(self) -> None:
        """A change was recorded or applied just now."""
        self._unpublished = True
        self._news.set()

    async def run(self) -> NoReturn:
        """Publishes whenever there is something new, without end."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not await self.publish():
                await asyncio.sleep(_PUBLISH_SECONDS)

    async def publish(self) -> bool:
        """Publishes what is recorded of changes and isn't published yet; whether the broker has taken everything."""
        if not self._unpublished:
            return True
        async with self._publishing:
            self._unpublished, complete = False, False
            try:
                complete = await self._publish_all()
            finally:
                # Also after a cancellation, by which `published` stops waiting.
                if not complete:
                    self.news()
        return complete

    async def _publish_all(self) -> bool:
        """Whether the broker has taken everything. A document that it refuses, such as a large one, delays no other."""
        complete = True
        for change in await self._manifest.unpublished_changes():
            try:
                await self._publish(await self._manifest.experiment_id(change.experiment), change)
            except (errors.BrokerUnavailable, errors.BrokerMisconfigured) as error:
                complete = False
                log.warning("change.publish_delayed", reason=str(error))
                if isinstance(error, errors.BrokerUnavailable):
                    break
        return complete

    async def published(self, patience: float) -> None:
        """Returns once a change that was recorded just now is published, or after `patience` seconds at most."""
        if patience <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(patience, _PUBLISH_PATIENCE_SECONDS)):
                await self.publish()

    def refuse_too_large(self, experiment_id: str, change: Change) -> None:
        """Raises errors.RequestRefused if the documents of a change, which have all of its request, are too large."""
        size, limit = len(documents.encode(changes.document(experiment_id, change))), self._broker.max_document_bytes
        if size > limit - _COUNTS_BYTES:
            message = f"the request is too long to be published: with it, a change has {size:,} bytes"
            remedy = "send less of it, for extend 'add', 'samples' or 'replicates', or raise the server's max_payload"
            raise errors.RequestRefused(f"{message}, and the NATS server takes {limit:,}; {remedy}")

    async def _publish(self, experiment_id: str, change: Change) -> None:
        """Publishes the document of the change as recorded, and, if it is closed, the last one.

        Message ids are those of the request, so that a repetition is one message within the broker's window.
        """
        digest = hashlib.sha256(change.request_id.encode()).hexdigest()[:24]
        items = []
        for number in range(change.published, 2 if change.applied_ms is not None else 1):
            shown = change if number else replace(change, applied_ms=None)
            document = documents.encode(changes.document(experiment_id, shown))
            items.append((f"{subjects.CHANGE}.{experiment_id}", document, f"{experiment_id}-{digest}-{number}"))
        crash.point("steering.publishing")
        await self._broker.publish(items)
        crash.point("steering.published")
        await self._manifest.change_published(change.number, change.published + len(items))
