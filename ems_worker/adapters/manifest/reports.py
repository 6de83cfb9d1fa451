"""What the services read of the manifest."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TypeVar

import orjson
from msgspec.structs import asdict

from ems_worker import errors
from ems_worker.adapters.manifest import counts, due, experiments, incoming, reads, rows, steering_reads
from ems_worker.adapters.manifest.due import Due
from ems_worker.core.access.quotas import OpenWork
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.records import (
    EVERY,
    Experiment,
    JobRow,
    ListedExperiment,
    ParkedEvent,
    PointRecord,
    PointRow,
    Submission,
    Which,
)

EXPORT_PAGE = 1000
_MAX_KEY = 2**63 - 1
_OfPoint = TypeVar("_OfPoint", reads.PointJobsRow, reads.PointMetricRow)
# How long runs take is estimated from the last completed runs of the latest experiments: so many of each.
_LATEST_EXPERIMENTS = 20
_LATEST_RUNS = 100


def _unknown(key: int) -> errors.NotFound:
    return errors.NotFound(f"the manifest has no experiment with key {key}")


def _by_point(rows: Iterable[_OfPoint]) -> dict[int, list[_OfPoint]]:
    return {point: list(group) for point, group in groupby(rows, attrgetter("point"))}


class Reports(Due):
    # Submissions.
    async def submission(self, message: tuple[int, int, int]) -> Submission | None:
        created_ns, seq, stored_ms = message
        row = await self._hot.one(reads.SUBMISSION, stream_created_ns=created_ns, seq=seq, stored_ms=stored_ms)
        return None if row is None else incoming.submission(row)

    async def accepted(self, digest: bytes) -> bytes | None:
        document: str | None = await self._hot.value("accepted", digest=digest)
        return None if document is None else document.encode()

    async def open_work(self, publisher: str | None) -> OpenWork:
        row = await self._hot.one(reads.QUOTA_USE, publisher=publisher)
        return OpenWork() if row is None else OpenWork(row.experiments, row.jobs)

    async def last_plan(self, stream_created_ns: int) -> int:
        seq: int | None = await self._hot.value("last_plan", stream_created_ns=stream_created_ns)
        return seq or 0

    async def unpublished_decisions(self) -> Sequence[Submission]:
        return [incoming.submission(row) for row in await self._hot.all(reads.UNPUBLISHED_DECISIONS)]

    # Experiments.
    async def experiment(self, experiment_id: str) -> Experiment | None:
        row = await self._hot.one(reads.EXPERIMENT, experiment_id=experiment_id)
        return None if row is None else experiments.experiment(row)

    async def unfinished(self) -> Sequence[Experiment]:
        return [experiments.experiment(row) for row in await self._hot.all(reads.UNFINISHED)]

    async def status(self, key: int) -> bytes | None:
        document: str | None = await self._hot.value("status", key=key)
        return None if document is None else document.encode()

    async def statuses(
        self, which: Which = EVERY, *, before_key: int | None = None, limit: int = 50
    ) -> Sequence[ListedExperiment]:
        page = await self._reports.all(
            reads.STATUSES, before_key=_MAX_KEY if before_key is None else before_key, limit=limit, **asdict(which)
        )
        return [
            ListedExperiment(
                row.key, row.experiment_id, None if row.document is None else row.document.encode(), row.publisher
            )
            for row in page
        ]

    async def tally(self, key: int) -> Tally:
        of = {"key": key}
        experiment, counted, metrics = await self._reports.together(
            (reads.TRACKED, of), (reads.COUNTED, of), (reads.MERGED_METRICS, of)
        )
        if not experiment:
            raise _unknown(key)
        return counts.tally(experiment[0], orjson.loads(experiment[0].metrics), counted, metrics)

    async def aggregates(self, key: int) -> Mapping[str, Aggregate]:
        tracked = orjson.loads((await self._tracked(key)).metrics)
        return counts.aggregates(tracked, await self._hot.all(reads.MERGED_METRICS, key=key))

    # Runs.
    async def open_jobs(self, key: int) -> Sequence[tuple[Job, PointRecord]]:
        return await self._with_points(key, await self._hot.all(reads.OPEN_JOBS, key=key))

    async def awaiting(self, key: int) -> Sequence[Run]:
        return [rows.run(row) for row in await self._hot.all(reads.AWAITING, key=key)]

    async def jobs_after(self, key: int, after: tuple[int, int], limit: int) -> Sequence[tuple[Job, PointRecord]]:
        point, replicate = after
        attempts = await self._hot.all(
            steering_reads.JOBS_AFTER, key=key, point=point, replicate=replicate, limit=limit
        )
        return await self._with_points(key, attempts)

    async def awaiting_jobs(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        point, replicate = after
        attempts = await self._hot.all(
            steering_reads.AWAITING_JOBS, key=key, point=point, replicate=replicate, limit=limit
        )
        return list(rows.jobs(attempts).values())

    async def to_retry(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        point, replicate = after
        attempts = await self._hot.all(reads.TO_RETRY, key=key, point=point, replicate=replicate, limit=limit)
        return list(rows.jobs(attempts).values())

    async def points_by_number(self, key: int, numbers: Sequence[int]) -> Mapping[int, PointRecord]:
        return await self._points(self._hot, key, numbers)

    # Reports.
    async def durations(self, base: bytes) -> Sequence[CompletedRun]:
        latest = await self._reports.all(
            reads.DURATIONS, base=base.decode(), experiments=_LATEST_EXPERIMENTS, each=_LATEST_RUNS
        )
        return [rows.completed_run(row) for row in latest]

    async def results(self, key: int, after_seq: int, limit: int) -> Sequence[JobRow]:
        return await self._job_rows(key, await self._hot.all(reads.RESULTS, key=key, after_seq=after_seq, limit=limit))

    async def points(self, key: int, numbers: Sequence[int]) -> Sequence[PointRow]:
        tracked = orjson.loads((await self._tracked(key)).metrics)
        records = await self._points(self._hot, key, numbers)
        of = {"key": key, "numbers": due.as_list(records)}
        jobs, metrics = await self._hot.together((reads.JOBS_OF_POINTS, of), (reads.METRICS_OF_POINTS, of))
        jobs_of, metrics_of = _by_point(jobs), _by_point(metrics)
        return [
            counts.point(records[number], tracked, jobs_of.get(number, ()), metrics_of.get(number, ()))
            for number in sorted(records)
        ]

    async def ended_points(self, key: int, numbers: Sequence[int], seq: int) -> Sequence[int]:
        ended = await self._hot.all(reads.ENDED_POINTS, key=key, numbers=due.as_list(numbers), seq=seq)
        return [row.point for row in ended]

    async def called_off_points(self, key: int, after_point: int, limit: int) -> Sequence[int]:
        page = await self._reports.all(reads.CALLED_OFF_POINTS, key=key, after_point=after_point, limit=limit)
        return [row.point for row in page]

    async def points_page(self, key: int, after_point: int, limit: int) -> Sequence[PointRow]:
        page = await self._reports.all(reads.POINT_NUMBERS, key=key, after_point=after_point, limit=limit)
        return await self.points(key, [row.point for row in page])

    async def best_point(self, key: int) -> PointRow | None:
        experiment = await self._tracked(key)
        tracked = orjson.loads(experiment.metrics)
        if experiment.goal_metric not in tracked:
            return None
        sign = -1 if experiment.goal == "maximize" else 1
        metric = tracked.index(experiment.goal_metric)
        point = await self._reports.value("best_point", key=key, metric=metric, sign=sign)
        return None if point is None else (await self.points(key, [point]))[0]

    async def commonest_error(self, key: int) -> tuple[ErrorKind, str | None, int] | None:
        row = await self._reports.one(steering_reads.COMMONEST_ERROR, key=key)
        return None if row is None else (ErrorKind(row.error_kind), row.error_message, row.jobs)

    # Queries.
    async def jobs_page(
        self,
        key: int,
        after: tuple[int, int, int],
        limit: int,
        *,
        last: tuple[int, int] | None = None,
        attempts: bool = False,
        state: str | None = None,
    ) -> Sequence[JobRow]:
        point, replicate, attempt = after
        last_point, last_replicate = last or (_MAX_KEY, _MAX_KEY)
        page = await self._reports.all(
            reads.JOBS_PAGE,
            key=key,
            point=point,
            replicate=replicate,
            attempt=attempt,
            last_point=last_point,
            last_replicate=last_replicate,
            limit=limit,
            attempts=attempts,
            state=state,
        )
        return await self._job_rows(key, page)

    async def export(self, key: int) -> AsyncIterator[JobRow]:
        """Reads a page at a time. Each job is as it is when its page is read, and no long read blocks checkpoints."""
        after = (-1, -1, -1)
        while page := await self.jobs_page(key, after, EXPORT_PAGE):
            for row in page:
                yield row
            last = page[-1].run
            # After every attempt of the last job: another of them may become the current one between two pages.
            after = (last.point, last.replicate, _MAX_KEY)

    # Events of unknown runs.
    async def parked(self) -> Sequence[ParkedEvent]:
        return [rows.parked(row) for row in await self._hot.all(reads.PARKED)]

    async def parked_of(self, experiment_ids: Sequence[str]) -> Sequence[ParkedEvent]:
        return [
            rows.parked(row) for row in await self._hot.all(reads.PARKED_OF, experiments=due.as_list(experiment_ids))
        ]

    async def any_parked(self) -> bool:
        return await self._hot.value("any_parked") is not None

    # What the worker remembers about the outside.
    async def remembered(self, name: str) -> str | None:
        value: str | None = await self._hot.value("remembered", name=name)
        return value

    async def identity(self) -> str:
        """Distinguishes this manifest from every other. A backup, and what is restored from it, keep it."""
        identity = await self.remembered("identity")
        assert identity is not None  # the schema creates it
        return identity

    async def _tracked(self, key: int) -> reads.TrackedRow:
        row = await self._hot.one(reads.TRACKED, key=key)
        if row is None:
            raise _unknown(key)
        return row

    async def _with_points(self, key: int, attempts: Sequence[reads.RunRow]) -> list[tuple[Job, PointRecord]]:
        points = await self._points(self._hot, key, (row.point for row in attempts))
        return [(job, points[point]) for (_, point, _), job in rows.jobs(attempts).items()]

    async def _job_rows(self, key: int, runs: Sequence[reads.RunRow]) -> list[JobRow]:
        points = await self._points(self._reports, key, (row.point for row in runs))
        return [JobRow(points[row.point], rows.run(row)) for row in runs]
