"""What the services read of the manifest."""

import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import orjson

from ems_worker import errors
from ems_worker.adapters.manifest import rows
from ems_worker.adapters.manifest.reader import Reader
from ems_worker.core.access.quotas import OpenWork
from ems_worker.core.lifecycle.estimate import CompletedRun
from ems_worker.core.lifecycle.experiment import ExperimentState, Tally
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import ChangeRequest, Experiment, JobRow, ParkedEvent, PointRecord, PointRow, Submission

EXPORT_PAGE = 1000
_LARGEST_KEY = 2**63 - 1
# What is looked at to tell how long runs take: the ends of so many experiments, so many of each.
_LATEST_EXPERIMENTS = 20
_LATEST_RUNS = 100


def _list(values: Iterable[Any]) -> str:
    """A list as one value of a query, which unpacks it by json_each."""
    return orjson.dumps(list(values)).decode()


class Reports:
    """`hot` answers what submission and tracking wait for; `reports` what may take its time."""

    def __init__(self, hot: Reader, reports: Reader) -> None:
        self._hot = hot
        self._reports = reports

    # Submissions.
    async def submission(self, message: tuple[int, int, int]) -> Submission | None:
        created_ns, seq, stored_ms = message
        row = await self._hot.one("submission", stream_created_ns=created_ns, seq=seq, stored_ms=stored_ms)
        return None if row is None else rows.submission(row)

    async def accepted(self, digest: bytes) -> bytes | None:
        row = await self._hot.one("accepted", digest=digest)
        return None if row is None else str(row[0]).encode()

    async def open_work(self, publisher: str | None) -> OpenWork:
        row = await self._hot.one("held", publisher=publisher)
        assert row is not None
        return OpenWork(*row)

    async def last_plan(self, stream_created_ns: int) -> int:
        row = await self._hot.one("last_plan", stream_created_ns=stream_created_ns)
        return 0 if row is None or row[0] is None else int(row[0])

    async def unpublished_decisions(self) -> Sequence[Submission]:
        return [rows.submission(row) for row in await self._hot.all("unpublished_decisions")]

    # Experiments.
    async def experiment(self, experiment_id: str) -> Experiment | None:
        row = await self._hot.one("experiment", experiment_id=experiment_id)
        return None if row is None else rows.experiment(row)

    async def unfinished(self) -> Sequence[Experiment]:
        return [rows.experiment(row) for row in await self._hot.all("unfinished")]

    async def status(self, key: int) -> bytes | None:
        row = await self._hot.one("status", key=key)
        return None if row is None else str(row[0]).encode()

    async def statuses(
        self,
        group: str | None = None,
        state: ExperimentState | None = None,
        before_key: int | None = None,
        limit: int = 50,
    ) -> Sequence[tuple[int, str, bytes | None]]:
        found = await self._reports.all(
            "statuses",
            group=group,
            state=None if state is None else state.value,
            before_key=_LARGEST_KEY if before_key is None else before_key,
            limit=limit,
        )
        return [(key, name, None if document is None else document.encode()) for key, name, document in found]

    async def tally(self, key: int) -> Tally:
        total, tracked, *_ = await self._tracked(key)
        count = rows.Count(tracked)
        async with contextlib.aclosing(self._reports.stream("standing", {"key": key})) as chunks:
            async for chunk in chunks:
                for row in chunk:
                    count.add(*row)
        return Tally(total, count.counts, count.metrics)

    # Runs.
    async def due(self, key: int, now_ms: int, limit: int) -> Sequence[tuple[Job, PointRecord]]:
        return await self._with_points(key, await self._hot.all("due", key=key, now_ms=now_ms, limit=limit))

    async def due_counts(self, keys: Sequence[int], now_ms: int, most: int) -> Mapping[int, int]:
        return dict(await self._hot.all("due_counts", keys=_list(keys), now_ms=now_ms, most=most))

    async def next_due_ms(self, after_ms: int) -> int | None:
        row = await self._hot.one("next_due", after_ms=after_ms)
        return None if row is None or row[0] is None else int(row[0])

    async def last_due_ms(self) -> int | None:
        row = await self._hot.one("last_due")
        return None if row is None or row[0] is None else int(row[0])

    async def jobs(self, keys: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], Job]:
        return rows.jobs(await self._hot.all("jobs", keys=_list(set(keys))))

    async def open_jobs(self, key: int) -> Sequence[tuple[Job, PointRecord]]:
        return await self._with_points(key, await self._hot.all("open_jobs", key=key))

    async def awaiting(self, key: int) -> Sequence[Run]:
        return [rows.run(row) for row in await self._hot.all("awaiting", key=key)]

    async def to_retry(self, key: int, after: tuple[int, int], limit: int) -> Sequence[Job]:
        """Jobs that failed, were lost or dropped, in order, after a (point, replicate), but for infeasible ones."""
        found = await self._hot.all("to_retry", key=key, point=after[0], replicate=after[1], limit=limit)
        return list(rows.jobs(found).values())

    # Control.
    async def request(self, request_id: str) -> ChangeRequest | None:
        row = await self._hot.one("request", request_id=request_id)
        return None if row is None else ChangeRequest(*row)

    async def open_requests(self, key: int) -> Sequence[ChangeRequest]:
        return [ChangeRequest(*row) for row in await self._hot.all("open_requests", key=key)]

    async def points_by_number(self, key: int, numbers: Sequence[int]) -> Mapping[int, PointRecord]:
        return await self._points(self._hot, key, numbers)

    # Reports.
    async def durations(self, base: bytes) -> Sequence[CompletedRun]:
        found = await self._reports.all(
            "durations", base=base.decode(), experiments=_LATEST_EXPERIMENTS, each=_LATEST_RUNS
        )
        return [CompletedRun(bool(same_base), model_version, seconds) for same_base, model_version, seconds in found]

    async def results(self, key: int, after_seq: int, limit: int) -> Sequence[JobRow]:
        return await self._job_rows(key, await self._hot.all("results", key=key, after_seq=after_seq, limit=limit))

    async def points(self, key: int, numbers: Sequence[int]) -> Sequence[PointRow]:
        """In order of the points' numbers; points that aren't there are left out."""
        _, tracked, *_ = await self._tracked(key)
        records = await self._points(self._hot, key, numbers)
        found = await self._hot.all("standing_of_points", key=key, numbers=_list(records))
        standing = {point: list(group) for point, group in groupby(found, key=lambda row: row[0])}
        return [rows.point_row(records[number], standing.get(number, ()), tracked) for number in sorted(records)]

    async def ended_points(self, key: int, numbers: Sequence[int], seq: int) -> Sequence[int]:
        return [row[0] for row in await self._hot.all("ended_points", key=key, numbers=_list(numbers), seq=seq)]

    async def points_page(self, key: int, after_point: int, limit: int) -> Sequence[PointRow]:
        found = await self._reports.all("point_numbers", key=key, after_point=after_point, limit=limit)
        return await self.points(key, [row[0] for row in found])

    async def best_point(self, key: int) -> PointRow | None:
        _, _, metric, goal = await self._tracked(key)
        if metric is None:
            return None
        row = await self._reports.one("best_point", key=key, metric=metric, sign=-1 if goal == "maximize" else 1)
        return None if row is None else (await self.points(key, [row[0]]))[0]

    # Queries.
    async def jobs_page(
        self, key: int, after: tuple[int, int, int], limit: int, attempts: bool = False, state: str | None = None
    ) -> Sequence[JobRow]:
        """`state` is a name that a status counts by (core.experiment.Bucket): infeasible ones aren't failed ones."""
        point, replicate, attempt = after
        found = await self._reports.all(
            "jobs_page",
            key=key,
            point=point,
            replicate=replicate,
            attempt=attempt,
            limit=limit,
            attempts=attempts,
            state=state,
        )
        return await self._job_rows(key, found)

    async def export(self, key: int) -> AsyncIterator[JobRow]:
        """Reads a page at a time: each job is as it is when its page is read, and no long read holds the log back."""
        after = (-1, -1, -1)
        while page := await self.jobs_page(key, after, EXPORT_PAGE):
            for row in page:
                yield row
            last = page[-1].run
            # Past all attempts of the job: while pages are read another of them may come to stand for it.
            after = (last.point, last.replicate, _LARGEST_KEY)

    # Events of unknown runs.
    async def parked(self) -> Sequence[ParkedEvent]:
        return [rows.parked(row) for row in await self._hot.all("parked")]

    async def parked_of(self, experiment_ids: Sequence[str]) -> Sequence[ParkedEvent]:
        return [rows.parked(row) for row in await self._hot.all("parked_of", experiments=_list(experiment_ids))]

    async def any_parked(self) -> bool:
        return await self._hot.one("any_parked") is not None

    # What the worker remembers about the outside.
    async def remembered(self, name: str) -> str | None:
        row = await self._hot.one("remembered", name=name)
        return None if row is None else str(row[0])

    async def identity(self) -> str:
        """Tells this manifest from every other; a backup and what is restored from it have the same."""
        found = await self.remembered("identity")
        assert found is not None  # the schema makes it
        return found

    async def _tracked(self, key: int) -> tuple[int, list[str], str | None, str | None]:
        """Jobs in all, tracked metrics, the metric that ranks points, and its goal."""
        row = await self._hot.one("tracked", key=key)
        if row is None:
            raise errors.NotFound(f"the manifest has no experiment with key {key}")
        return row[0], orjson.loads(row[1]), row[2], row[3]

    async def _points(self, reader: Reader, key: int, numbers: Iterable[int]) -> dict[int, PointRecord]:
        """Points never change, so reading them after the runs that need them is as good as reading them with those."""
        found = await reader.all("points_by_number", key=key, numbers=_list(set(numbers)))
        return {row[0]: rows.point(row) for row in found}

    async def _with_points(self, key: int, found: Sequence[rows.Row]) -> list[tuple[Job, PointRecord]]:
        points = await self._points(self._hot, key, (row[1] for row in found))
        return [(job, points[place[1]]) for place, job in rows.jobs(found).items()]

    async def _job_rows(self, key: int, found: Sequence[rows.Row]) -> list[JobRow]:
        points = await self._points(self._reports, key, (row[1] for row in found))
        return [JobRow(points[row[1]], rows.run(row)) for row in found]
