"""Publishes results and statuses from the manifest, and records how far publishing has come.

Results follow a cursor over the ends of jobs, statuses have revisions. Both are on disk before they are sent, so a
crash may repeat a message, unchanged, and never loses one.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from ems_worker import errors
from ems_worker.core.documents import documents, results, subjects
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import Tally
from ems_worker.core.records import Experiment, PointRow
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.reasons import Reasons

log = structlog.get_logger()

_PAGE = 500
# A page ends with the result that exceeds this.
_PAGE_BYTES = 16 * 1024 * 1024
# The period over which throughput is measured, and the number of samples.
_PACE_SECONDS = 30.0
_PACE_SAMPLES = 60
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
        write_manifest: Callable[[Live], Awaitable[None]] | None,
    ) -> None:
        """`write_manifest` writes the manifest file of an experiment that has ended."""
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._clock = clock
        self._metrics = metrics
        self._worker_id = worker_id
        self._interval = interval_seconds
        self._reasons = reasons
        self.write_manifest = write_manifest
        # Manifest files of large experiments that are being written.
        self._leaving: dict[int, asyncio.Future[None]] = {}
        self._news: set[int] = set()
        self._wake = asyncio.Event()

    def notify(self, key: int) -> None:
        """The experiment has news."""
        self._news.add(key)
        self._wake.set()

    def has_news(self, key: int) -> bool:
        """Whether the experiment has news that are not published."""
        return key in self._news

    def look(self) -> None:
        """Has those experiments reported whose reason isn't what their last status gave."""
        for live in self._ledger.experiments():
            if self._reasons.of(live) != live.reason:
                self.notify(live.key)

    async def run(self) -> None:
        """Reports on every experiment with news, then waits for more; publishes at most one status per interval."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = self._clock.monotonic()
            pause = self._interval
            for key in list(self._news):
                if not await self._is_told(key):
                    self.notify(key)
                    pause = _BROKER_PAUSE_SECONDS
            # News that arrive meanwhile share the next status.
            await asyncio.sleep(max(0.0, pause - (self._clock.monotonic() - began)))

    async def flush(self) -> None:
        """Reports on every experiment with news until there are none, before the worker ends.

        An experiment whose documents can't be published is left to the next worker.
        """
        left: set[int] = set()
        while news := self._news - left:
            for key in news:
                if not await self._is_told(key):
                    left.add(key)

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
        """Publishes new ends of jobs, then the status; unloads an experiment whose end is published."""
        if (leaving := self._leaving.get(live.key)) is not None:
            if not leaving.done():
                return
            del self._leaving[live.key]
            await leaving  # raises if writing failed, like writing a smaller file does
        try:
            await self._results(live)
        except (errors.BrokerMisconfigured, errors.BrokerUnavailable):
            # A status can be published nevertheless, with the reason; only the last status waits for the results.
            if not live.ended and self._broker.connected:
                await self._status(live, live.record, live.recorded)
            raise
        record, tally = live.record, live.recorded
        if live.ended and record.published_seq < record.ended_seq:
            # It ended just now, and its last results come first.
            self.notify(live.key)
            return
        if live.ended and live.exported_seq != record.ended_seq and self.write_manifest is not None:
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

    async def _leave(self, live: Live, ended_seq: int) -> None:
        assert self.write_manifest is not None
        await self.write_manifest(live)
        live.exported_seq = ended_seq
        crash.point("report.file")

    async def _results(self, live: Live) -> None:
        # No further than this, so that a status gets its turn while jobs end faster than they are published.
        target = live.record.ended_seq
        while live.record.published_seq < target:
            rows = await self._manifest.results(live.key, live.record.published_seq, _PAGE)
            if not rows:
                return
            items, size = [], 0
            for row in rows:
                encoded = documents.encode(results.result(live.experiment_id, row))
                name = f"{live.experiment_id}-p{row.run.point}-r{row.run.replicate}-v{row.run.job_revision}"
                items.append((f"{subjects.RESULT}.{live.experiment_id}", encoded, name))
                size += len(encoded)
                if size > _PAGE_BYTES:
                    break
            rows = rows[: len(items)]
            last = rows[-1].run.ended_seq
            assert last is not None
            ended = await self._ended_points(live, sorted({row.run.point for row in rows}), last)
            for point in ended:
                document = documents.point(live.experiment_id, point)
                name = f"{live.experiment_id}-p{point.point.point}-v{point.ended_seq}"
                items.append((f"{subjects.POINT}.{live.experiment_id}", documents.encode(document), name))
            await self._broker.publish(items, live.record.spec.traceparent)
            crash.point("report.results")
            await self._ledger.records.results_published(live, last)
            crash.point("report.cursor")
            self._metrics.results.inc(len(rows))
            await self._rank(live, ended)

    async def _ended_points(self, live: Live, numbers: list[int], last: int) -> list[PointRow]:
        """Points whose jobs have all ended, the last of them among the ends that are published now."""
        # Numbers first: the jobs of a point that still has an open job need not be read.
        complete = await self._manifest.ended_points(live.key, numbers, last)
        rows = await self._manifest.points(live.key, complete) if complete else ()
        return [row for row in rows if row.ended_seq is not None and row.ended_seq <= last]

    async def _rank(self, live: Live, ended: list[PointRow]) -> None:
        goal, metric = live.record.spec.goal, live.record.spec.goal_metric
        for row in ended:
            if live.best is not None and live.best.point.point == row.point.point:
                # A late result changed the leader, so another point may be better now.
                live.best = await self._manifest.best_point(live.key)
            else:
                live.best = documents.better(goal, metric, live.best, row)

    async def _status(self, live: Live, record: Experiment, tally: Tally) -> None:
        now = self._clock.monotonic()
        live.samples.append((now, tally.ended))
        while len(live.samples) > _PACE_SAMPLES or live.samples[0][0] < now - _PACE_SECONDS:
            live.samples.pop(0)
        revision = self._ledger.records.next_revision(live)
        live.reason = reason = self._reasons.of(live, record)
        document = documents.status(
            replace(record, revision=revision),
            tally,
            worker_id=self._worker_id,
            now_ms=self._clock.now_ms(),
            pace=documents.pace(live.samples, tally.total - tally.ended),
            best=live.best,
            reason=reason,
        )
        encoded = documents.encode(document)
        await self._manifest.record_status(live.key, revision, encoded)
        crash.point("report.composed")
        subject = f"{subjects.STATUS}.{live.experiment_id}"
        if not await self._broker.publish_latest(subject, encoded, revision):
            await self._go_above(live, subject, revision)
            return
        crash.point("report.status")
        await self._ledger.records.status_published(live, revision)
        self._metrics.statuses.inc()

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
