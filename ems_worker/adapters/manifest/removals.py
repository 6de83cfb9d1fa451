"""Removes experiments: at once from all queries, and then from the file, a part at a time."""

from collections.abc import Sequence

from ems_worker.adapters.manifest import incoming, steering_reads
from ems_worker.adapters.manifest.queries import WRITES
from ems_worker.adapters.manifest.steering import Steering
from ems_worker.adapters.manifest.writer import Step
from ems_worker.core.documents import changes
from ems_worker.core.records import Change

# In this order, since rows of the first tables refer to those of the last.
_PURGES = ("purge_runs", "purge_metrics", "purge_identities", "purge_points")
# Of how many rows the size of a row is the average.
_SAMPLE = 500


class Removals(Steering):
    """The part of the manifest that removes experiments."""

    async def removed_ms(self, experiment_id: str) -> int | None:
        removed_ms: int | None = await self._hot.value("removed_at", experiment_id=experiment_id)
        return removed_ms

    async def remove(self, change: Change) -> Change:
        key = [(change.experiment,)]
        await self._writer.submit(
            Step(WRITES["insert_change"], [incoming.new_change(change)]),
            Step(WRITES["insert_removal"], [(change.experiment, change.received_ms)]),
            Step(WRITES["forget_digest"], key, guarded=False),
            Step(WRITES["drop_plans"], key, guarded=False),
            Step(WRITES["drop_status"], key, guarded=False),
        )
        recorded = await self.change_from(change.request_id, change.experiment)
        assert recorded is not None
        return recorded

    async def open_removals(self) -> Sequence[Change]:
        found = await self._hot.all(steering_reads.OPEN_REMOVALS, verb=changes.REMOVE)
        return [incoming.change(row) for row in found]

    async def purge(self, key: int, limit: int) -> int:
        for statement in _PURGES:
            (deleted,) = await self._writer.submit(Step(WRITES[statement], [(key, limit)], guarded=False))
            if deleted:
                return deleted
        return 0

    async def removal_done(self, change: Change) -> None:
        await self._writer.submit(Step(WRITES["update_change"], [incoming.changed_change(change)]))

    async def ended_before(self, before_ms: int, limit: int) -> Sequence[tuple[int, str]]:
        found = await self._reports.all(steering_reads.ENDED_BEFORE, before_ms=before_ms, limit=limit)
        return [(row.key, row.experiment_id) for row in found]

    async def bytes_of(self, key: int) -> int:
        size: float | None = await self._reports.value("bytes_of", key=key, sample=_SAMPLE)
        return int(size or 0)
