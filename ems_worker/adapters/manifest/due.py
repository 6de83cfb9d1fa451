"""What the services read of the manifest to start runs: those that are due, and their points."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from ems_worker.adapters.manifest import due_reads, reads, rows
from ems_worker.adapters.manifest.reader import ReadConnection
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.records import DueRuns, PointRecord

# How many points are kept, and how many characters the parameters of such a point have at most.
_KEPT_POINTS = 2_000
_MAX_KEPT_CHARACTERS = 8_192


def as_list(values: Iterable[Any]) -> str:
    """A list as one value of a query, which unpacks it by json_each."""
    return orjson.dumps(list(values)).decode()


class Due:
    """`hot` answers what submission and tracking wait for; `reports` answers queries that may take long."""

    def __init__(self, hot: ReadConnection, reports: ReadConnection) -> None:
        self._hot = hot
        self._reports = reports
        # Points that were read last, by experiment and number: a run needs its point when it starts and when it ends.
        self._recent: dict[tuple[int, int], PointRecord] = {}

    async def due(self, key: int, now_ms: int, limit: int) -> Sequence[tuple[Job, PointRecord]]:
        found = await self._hot.all(due_reads.DUE, key=key, now_ms=now_ms, limit=limit)
        points = await self._points(self._hot, key, (row.point for row in found))
        others = await self._others((key, row) for row in found)
        return [
            (rows.new_job(row) if row.is_new else others[key, row.point, row.replicate], points[row.point])
            for row in found
        ]

    async def due_of(
        self, keys: Sequence[int], now_ms: int, limit: int
    ) -> Mapping[int, Sequence[tuple[Job, PointRecord]]]:
        found = await self._hot.all(due_reads.DUE_OF, keys=as_list(keys), now_ms=now_ms, limit=limit)
        points = await self._points_of((row.experiment, row.point) for row in found)
        others = await self._others((row.experiment, row) for row in found)
        due: dict[int, list[tuple[Job, PointRecord]]] = {key: [] for key in keys}
        for row in found:
            job = rows.new_job(row) if row.is_new else others[row.experiment, row.point, row.replicate]
            due[row.experiment].append((job, points[row.experiment, row.point]))
        return due

    async def due_counts(self, keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, DueRuns]:
        found = await self._hot.all(due_reads.DUE_COUNTS, keys=as_list(keys), now_ms=now_ms, limit=limit)
        return {row.experiment: DueRuns(row.due, row.next_ms) for row in found}

    async def last_due_ms(self) -> int | None:
        due_ms: int | None = await self._hot.value("last_due")
        return due_ms

    async def jobs(self, keys: Sequence[tuple[int, int, int]]) -> Mapping[tuple[int, int, int], Job]:
        return rows.jobs(await self._hot.all(reads.JOBS, keys=as_list(set(keys))))

    async def _others(
        self, due: Iterable[tuple[int, due_reads.DueRow | due_reads.DueOfRow]]
    ) -> Mapping[tuple[int, int, int], Job]:
        """The jobs of those runs of which more is known than their row has."""
        keys = [(key, row.point, row.replicate) for key, row in due if not row.is_new]
        return await self.jobs(keys) if keys else {}

    async def _points(self, connection: ReadConnection, key: int, numbers: Iterable[int]) -> dict[int, PointRecord]:
        """Points never change: they may be read after the runs that need them, and are kept for a while."""
        found: dict[int, PointRecord] = {}
        missing: list[int] = []
        for number in dict.fromkeys(numbers):
            if (known := self._recent.get((key, number))) is None:
                missing.append(number)
            else:
                found[number] = known
        if not missing:
            return found
        for row in await connection.all(reads.POINTS_BY_NUMBER, key=key, numbers=as_list(missing)):
            found[row.point] = self._keep(key, row)
        self._drop_oldest()
        return found

    async def _points_of(self, numbers: Iterable[tuple[int, int]]) -> Mapping[tuple[int, int], PointRecord]:
        """The same for points of several experiments, by experiment and number."""
        found: dict[tuple[int, int], PointRecord] = {}
        missing: list[tuple[int, int]] = []
        for number in dict.fromkeys(numbers):
            if (known := self._recent.get(number)) is None:
                missing.append(number)
            else:
                found[number] = known
        if missing:
            for row in await self._hot.all(due_reads.POINTS_OF, numbers=as_list(missing)):
                found[row.experiment, row.point] = self._keep(row.experiment, row)
            self._drop_oldest()
        return found

    def _keep(self, key: int, row: reads.PointRow | due_reads.PointOfRow) -> PointRecord:
        point = rows.point(row)
        if len(row.params) <= _MAX_KEPT_CHARACTERS:
            self._recent[key, row.point] = point
        return point

    def _drop_oldest(self) -> None:
        while len(self._recent) > _KEPT_POINTS:
            del self._recent[next(iter(self._recent))]
