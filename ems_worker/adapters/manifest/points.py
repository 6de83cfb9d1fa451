"""Points of experiments, of which those that were read last are kept."""

from collections.abc import Iterable

from ems_worker.adapters.manifest import reader, reads, rows
from ems_worker.adapters.manifest.reader import ReadConnection
from ems_worker.core.records import PointRecord

# How many points are kept, and how many characters the parameters of such a point have at most.
_KEPT = 2_000
_MAX_CHARACTERS = 8_192


class Points:
    """Reads points, each once if possible: a run needs its point when it starts and when it ends."""

    def __init__(self) -> None:
        # By experiment and number.
        self._recent: dict[tuple[int, int], PointRecord] = {}

    async def read(self, connection: ReadConnection, key: int, numbers: Iterable[int]) -> dict[int, PointRecord]:
        """Points of an experiment by their numbers; unknown ones are left out.

        Points never change: they may be read after the runs that need them.
        """
        found: dict[int, PointRecord] = {}
        missing: list[int] = []
        for number in dict.fromkeys(numbers):
            if (known := self._recent.get((key, number))) is None:
                missing.append(number)
            else:
                found[number] = known
        if not missing:
            return found
        for row in await connection.all(reads.POINTS_BY_NUMBER, key=key, numbers=reader.listed(missing)):
            found[row.point] = point = rows.point(row)
            if len(row.params) <= _MAX_CHARACTERS:
                self._recent[key, row.point] = point
        while len(self._recent) > _KEPT:
            del self._recent[next(iter(self._recent))]
        return found
