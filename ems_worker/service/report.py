"""Publishes what is new of experiments from the manifest, and records how far publishing has come.

Results follow a cursor over the ends of jobs, statuses have revisions. Both are on disk before they are sent, so a
crash may repeat a message, unchanged, and never loses one.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import orjson
import structlog

from ems_worker import errors
from ems_worker.core.documents import documents, subjects
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.records import Experiment
from ems_worker.service import statuses
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.outcomes import OnPublished, Outcomes
from ems_worker.service.reasons import Reasons
from ems_worker.service.settle import Settling

log = structlog.get_logger()

_BROKER_PAUSE_SECONDS = 1.0
# The manifest file of an experiment with more jobs is written while reports continue.
_LARGE_JOBS = 20_000


class Reporter:
    """Publishes the documents of one experiment after another. Of statuses it publishes only the latest."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        clock: Clock,
        metrics: Metrics,
        worker_id: str,
        interval_seconds: float,
        reasons: Reasons,
        settling: Settling,
        write_manifest: Callable[[Live], Awaitable[None]] | None,
        on_published: OnPublished | None,
    ) -> None:
        """`write_manifest` writes the manifest file of an experiment that has ended. `on_published` gets results."""
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._worker_id = worker_id
        self._interval = interval_seconds
        self._reasons = reasons
        self._settling = settling
        self._outcomes = Outcomes(
            ledger=ledger, manifest=manifest, broker=broker, metrics=metrics, on_published=on_published
        )
        self.write_manifest = write_manifest
        # Manifest files of large experiments that are being written.
        self._leaving: dict[int, asyncio.Future[None]] = {}
        self._news: set[int] = set()
        self._wake = asyncio.Event()
        # Set if an experiment that has ended has news.
        self._end = asyncio.Event()

    def notify(self, key: int) -> None:
        """The experiment has news."""
        self._news.add(key)
        self._wake.set()
        if self._has_ended(key):
            self._end.set()

    def has_news(self, key: int) -> bool:
        """Whether the experiment has news that are not published."""
        return key in self._news

    def look(self) -> None:
        """Has those experiments reported whose reason isn't what their last status gave."""
        for live in self._ledger.experiments():
            if self._reasons.of(live) != live.reason:
                self.notify(live.key)

    async def run(self) -> None:
        """Reports on every experiment with news, then waits for more; publishes at most one status per interval.

        The news of experiments that have ended don't wait for the interval.
        """
        loop = asyncio.get_running_loop()
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self._news:
                continue
            began = loop.time()
            await self._ledger.flush()
            pause = self._interval
            for key in list(self._news):
                if not await self._is_told(key):
                    self.notify(key)
                    pause = _BROKER_PAUSE_SECONDS
            if pause > self._interval:
                self._end.clear()
            # News that arrive meanwhile share the next status.
            await self._pause(began + pause)

    async def _pause(self, until: float) -> None:
        """Waits until this time of the loop; reports on experiments that end meanwhile."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._end.wait()
            self._end.clear()
            for key in [key for key in self._news if self._has_ended(key)]:
                await self._is_told(key)

    def _has_ended(self, key: int) -> bool:
        live = self._ledger.get(key)
        return live is not None and live.ended

    async def flush(self) -> None:
        """Reports on every experiment with news until there are none, before the worker ends.

        An experiment whose documents can't be published, or whose manifest file isn't complete, is left to the next
        worker.
        """
        left: set[int] = set()
        await self._ledger.flush()
        try:
            while news := self._news - left:
                for key in news:
                    if not await self._is_told(key):
                        left.add(key)
        finally:
            # They read the manifest, which is closed next.
            for leaving in self._leaving.values():
                leaving.cancel()
            await asyncio.gather(*self._leaving.values(), return_exceptions=True)

    async def _is_told(self, key: int) -> bool:
        """Reports on an experiment that is still in memory. False if that has to be retried.

        A document that can't be published (too large for the server, say) must not block other experiments.
        """
        if (live := self._ledger.get(key)) is None:
            self._news.discard(key)
            return True
        try:
            await self.report_news(live)
        except (errors.BrokerUnavailable, errors.BrokerMisconfigured) as error:
            log.warning("report.delayed", experiment_id=live.experiment_id, reason=str(error))
            return False
        return True

    async def report_news(self, live: Live) -> None:
        """Reports on an experiment. If that is cancelled or fails, the experiment keeps its news."""
        self._news.discard(live.key)
        try:
            await self.report(live)
        except BaseException:
            self._news.add(live.key)
            raise

    async def report(self, live: Live) -> None:
        """Publishes new ends of jobs, a round that settles, then the status; unloads an experiment once it has ended.

        A terminal status follows all of these, and the record of the end.
        """
        if (leaving := self._leaving.get(live.key)) is not None:
            if not leaving.done():
                return
            del self._leaving[live.key]
            await leaving  # raises if writing failed, like writing a smaller file does
        try:
            await self._outcomes.publish(live)
            settled = await self._settle(live)
        except (errors.BrokerMisconfigured, errors.BrokerUnavailable):
            # A status can be published nevertheless, with the reason; only the last status waits for the results.
            if not live.ended and self._broker.connected:
                await self._status(live, live.record, live.recorded)
            raise
        record, tally = live.record, live.recorded
        if not settled or (live.ended and record.published_seq < record.ended_seq):
            # Results come first that are new, or decided and not recorded yet. Not at once: their recording gives
            # notice, and needs the event loop.
            self._news.add(live.key)
            self._wake.set()
        if live.ended and (record.published_seq < record.ended_seq or not self._is_over(live)):
            return
        if self._owes_file(live):
            leaving = asyncio.ensure_future(self._leave(live, record.ended_seq))
            if record.spec.jobs > _LARGE_JOBS:
                # Writing takes seconds. Other reports continue, and the end is published once the file exists.
                self._leaving[live.key] = leaving
                leaving.add_done_callback(lambda _: self.notify(live.key))
                return
            await leaving
        await self._status(live, record, tally)
        if record.state in experiment.ENDED and not live.open and live.key not in self._news:
            await self._ledger.unload(live.key)

    async def _settle(self, live: Live) -> bool:
        """Publishes rounds that settle; whether that is done. Meanwhile the file of a small experiment is written."""
        record = live.record
        ready = record.published_seq == record.ended_seq and self._ledger.records.are_recorded(live)
        if not ready or not self._owes_file(live) or record.spec.jobs > _LARGE_JOBS:
            return await self._settling.settle(live)
        leaving = asyncio.ensure_future(self._leave(live, record.ended_seq))
        try:
            return await self._settling.settle(live)
        finally:
            await leaving

    def _owes_file(self, live: Live) -> bool:
        """Whether the experiment has ended, and its manifest file isn't that of its last end."""
        return live.ended and live.exported_seq != live.record.ended_seq and self.write_manifest is not None

    def _is_over(self, live: Live) -> bool:
        """Whether the end of an experiment is recorded and its round has settled. News follow if that is to come."""
        return self._ledger.records.are_recorded(live) and live.record.settled_round >= live.record.round

    async def _leave(self, live: Live, ended_seq: int) -> None:
        assert self.write_manifest is not None
        await self.write_manifest(live)
        live.exported_seq = ended_seq
        crash.point("report.file")

    async def _status(self, live: Live, record: Experiment, tally: Tally) -> None:
        """Publishes the status, unless it says what the last one said."""
        statuses.sample(live, tally, self._clock.monotonic())
        if live.reranks:
            await self._outcomes.rank_again(live)
        live.reason = reason = self._reasons.of(live, record)
        document = statuses.compose(
            live, record, tally, worker_id=self._worker_id, now_ms=self._clock.now_ms(), reason=reason
        )
        ended = record.state in experiment.ENDED
        if statuses.same(await self._last(live, record), document, ended=ended):
            # Not while anything is being recorded that another status has to report.
            if ended and record is live.record and self._ledger.records.are_recorded(live):
                await self._manifest.status_confirmed(live.key)
            return
        revision = self._ledger.records.next_revision(live)
        document["revision"] = revision
        encoded = documents.encode(document)
        await self._manifest.record_status(live.key, revision, encoded)
        crash.point("report.composed")
        subject = f"{subjects.STATUS}.{live.experiment_id}"
        if not await self._broker.publish_latest(subject, encoded, revision):
            await self._go_above(live, subject, revision)
            return
        crash.point("report.status")
        live.published = document
        await self._ledger.records.status_published(live, revision)
        self._metrics.statuses.inc()

    async def _last(self, live: Live, record: Experiment) -> Mapping[str, Any] | None:
        """The last published status; None if it isn't known, or is that of an open experiment by an earlier worker."""
        known = live.published is not None or not live.ended or record.published_revision != record.revision
        if not known and (stored := await self._manifest.status(live.key)) is not None:
            live.published = orjson.loads(stored)
        return live.published

    async def _go_above(self, live: Live, subject: str, revision: int) -> None:
        """A higher revision is published than this manifest knows, because it was recreated or restored.

        The next status gets a revision above the published one. Until that status is acknowledged, the manifest has a
        revision that waits to be published.
        """
        published = await self._broker.published_revision(subject)
        log.warning(
            "report.overtaken", experiment_id=live.experiment_id, revision=revision, published_revision=published
        )
        self._ledger.records.raise_revision(live, max(revision, published or 0))
        self.notify(live.key)
