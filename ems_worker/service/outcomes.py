"""Publishes what became of jobs and points, from the manifest: results by their cursor, and points that have ended."""

from collections.abc import Callable, Iterable, Sequence

from ems_worker.core.documents import documents, results, subjects
from ems_worker.core.documents.documents import Document
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import JobRow, PointRow
from ems_worker.service.base import crash
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live

_PAGE = 500
# A page ends with the result that exceeds this.
_PAGE_BYTES = 16 * 1024 * 1024

# Receives results of an experiment: the jobs and their documents.
OnPublished = Callable[[Live, Sequence[tuple[JobRow, Document]]], None]
# Subject, document, message id.
_Item = tuple[str, bytes, str]


class Outcomes:
    """Publishes results and points of one experiment at a time, and ranks its points."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        metrics: Metrics,
        on_published: OnPublished | None,
    ) -> None:
        """`on_published` receives results once they are published, before that is recorded."""
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._metrics = metrics
        self._on_published = on_published

    async def publish(self, live: Live) -> None:
        """Publishes the ends of jobs that are recorded, and the points that these complete.

        Raises errors.BrokerUnavailable and errors.BrokerMisconfigured.
        """
        # No further than this, so that a status gets its turn while jobs end faster than they are published.
        target = live.record.ended_seq
        while live.record.published_seq < target:
            rows = await self._ends(live)
            if not rows:
                return
            items, ended_jobs = _results(live, rows)
            rows = rows[: len(items)]
            last = rows[-1].run.ended_seq
            assert last is not None
            ended = await self._ended_points(live, sorted({row.run.point for row in rows}), last)
            await self._broker.publish([*items, *_points(live, ended)], live.record.spec.traceparent)
            if self._on_published is not None:
                self._on_published(live, ended_jobs)
            crash.point("report.results")
            await self._ledger.records.results_published(live, last)
            crash.point("report.cursor")
            self._metrics.results.inc(len(rows))
            await self._rank(live, ended)
        await self._publish_called_off(live)

    async def _ends(self, live: Live) -> Sequence[JobRow]:
        """The next ends of jobs to publish: from memory if they are there."""
        ends = live.ends_after(live.record.published_seq, _PAGE)
        if ends is None:
            return await self._manifest.results(live.key, live.record.published_seq, _PAGE)
        points = await self._manifest.points_by_number(live.key, sorted({run.point for run in ends}))
        return [JobRow(points[run.point], run) for run in ends]

    async def rank_again(self, live: Live) -> None:
        """Chooses the best point anew."""
        live.reranks = False
        live.best = await self._manifest.best_point(live.key)

    async def _ended_points(self, live: Live, numbers: list[int], last: int) -> list[PointRow]:
        """Points whose jobs have all ended, the last of them among the ends that are published now."""
        # Numbers first: the jobs of a point that still has an open job need not be read.
        complete = await self._manifest.ended_points(live.key, numbers, last)
        rows = await self._manifest.points(live.key, complete) if complete else ()
        return [row for row in rows if row.ended_seq is not None and row.ended_seq <= last]

    async def _publish_called_off(self, live: Live) -> None:
        """Publishes points that ended because their last jobs were cancelled before these started.

        Such jobs have no results that lead to their points. Points without any result are only counted, as their jobs
        are. After a crash in the round all of them are published again, unchanged.
        """
        if live.judging or not live.unreported:
            return
        looked_at, after = live.unreported, -1
        while numbers := await self._manifest.called_off_points(live.key, after, _PAGE):
            ended = [row for row in await self._manifest.points(live.key, numbers) if row.ended_seq]
            await self._broker.publish(_points(live, ended), live.record.spec.traceparent)
            crash.point("report.points")
            await self._rank(live, ended)
            after = numbers[-1]
        live.unreported -= looked_at

    async def _rank(self, live: Live, ended: Iterable[PointRow]) -> None:
        goal, metric = live.record.spec.goal, live.record.spec.goal_metric
        for row in ended:
            if live.best is not None and live.best.point.point == row.point.point:
                # A late result or an exclusion changed the leader, so another point may be better now.
                await self.rank_again(live)
            else:
                live.best = documents.better(goal, metric, live.best, row)


def _results(live: Live, rows: Iterable[JobRow]) -> tuple[list[_Item], list[tuple[JobRow, Document]]]:
    """The first of these results, as many as one message to the broker should have."""
    items: list[_Item] = []
    ended: list[tuple[JobRow, Document]] = []
    size = 0
    for row in rows:
        document = results.result(live.experiment_id, row)
        encoded = documents.encode(document)
        ended.append((row, document))
        name = f"{live.experiment_id}-p{row.run.point}-r{row.run.replicate}-v{row.run.job_revision}"
        items.append((f"{subjects.RESULT}.{live.experiment_id}", encoded, name))
        size += len(encoded)
        if size > _PAGE_BYTES:
            break
    return items, ended


def _points(live: Live, rows: Iterable[PointRow]) -> list[_Item]:
    subject = f"{subjects.POINT}.{live.experiment_id}"
    return [
        (
            subject,
            documents.encode(documents.point(live.experiment_id, row)),
            # Jobs that were cancelled before they started change a point, and have no position among the ends.
            f"{live.experiment_id}-p{row.point.point}-v{row.ended_seq}-{row.counts.get(Bucket.CANCELLED, 0)}",
        )
        for row in rows
    ]
