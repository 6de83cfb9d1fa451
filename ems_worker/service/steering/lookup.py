"""What becomes of a plan's own points: those that are there get what they lack, the others are appended."""

from collections import Counter
from collections.abc import Iterable, Sequence

from msgspec.structs import replace

from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.points.identity import IdentifiedPoint
from ems_worker.core.points.plan import Plan
from ems_worker.core.records import Additions, MatchedPoint, PointIdentity, PointRecord
from ems_worker.service.steering import withdrawal


class Lookup:
    """Collects the rows of some of a plan's own points, looked up one after another.

    Several points may be equal: each of them is found as another of the equal points that are there.
    """

    def __init__(self, first: int, plan: Plan) -> None:
        """`first` is the number of the first point that is appended."""
        self.points: list[PointRecord] = []
        # The points that are there, by number.
        self.matched: list[int] = []
        # Those of them that are withdrawn.
        self.returning: list[int] = []
        # First runs of jobs that don't count, because their whole point doesn't.
        self.excluded: list[Run] = []
        self.jobs = 0
        self._next = first
        self._plan = plan
        self._identities: list[PointIdentity] = []
        self._runs: list[Run] = []
        self._used: Counter[bytes] = Counter()

    @property
    def additions(self) -> Additions:
        return Additions(self.points, self._runs, self._identities, self.matched)

    def wanted(self, digests: Iterable[bytes]) -> int:
        """How many equal points may be needed for looking these up."""
        return max(self._used[digest] + number for digest, number in Counter(digests).items())

    def look_up(self, own: IdentifiedPoint, candidates: Sequence[MatchedPoint]) -> None:
        """Finds a point among those with its identity that are there, or appends it."""
        taken = self._used[own.digest]
        self._used[own.digest] += 1
        if taken < len(candidates):
            self._complete(candidates[taken])
        else:
            self._append(own)

    def forget(self) -> None:
        """Drops the rows, for a comparison that only counts."""
        for rows in (self.points, self.matched, self.returning, self.excluded, self._identities, self._runs):
            rows.clear()

    def _complete(self, known: MatchedPoint) -> None:
        self.matched.append(known.point)
        if known.excluded == withdrawal.REASON:
            self.returning.append(known.point)
        # The jobs of a withdrawn point count again when it returns.
        excluded = None if known.excluded == withdrawal.REASON else known.excluded
        runs = self._first_runs(known.point, known.replicates)
        if excluded is None:
            self._runs += runs
        else:
            self.excluded += [replace(run, excluded=excluded) for run in runs]

    def _append(self, own: IdentifiedPoint) -> None:
        point, number = own.point, self._next
        self._next += 1
        labels = {**self._plan.labels, **point.labels}
        self.points.append(PointRecord(number, point.params, point.run_id_suffix, labels))
        self._identities.append(PointIdentity(number, own.digest))
        self._runs += self._first_runs(number, 0)

    def _first_runs(self, point: int, start: int) -> list[Run]:
        """The first runs of a point's replicates from this one on."""
        replicates = range(start, self._plan.replicates)
        self.jobs += len(replicates)
        return [job.first(point, replicate, self._plan.seeds.of(point, replicate)) for replicate in replicates]
