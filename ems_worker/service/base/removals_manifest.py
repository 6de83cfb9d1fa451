"""The part of the port to the manifest that removing experiments needs."""

from collections.abc import Sequence
from typing import Protocol

from ems_worker.core.records import Change


class RemovalsManifest(Protocol):
    """See `ports.Manifest`. No other method finds an experiment that was removed; its id stays taken."""

    async def removed_ms(self, experiment_id: str) -> int | None:
        """When an experiment was removed; None if it wasn't."""

    async def remove(self, change: Change) -> Change:
        """Records that the change removes its experiment, and removes it, in one transaction.

        Returns the change with its number. Points and runs stay in the file until `purge`.
        """

    async def open_removals(self) -> Sequence[Change]:
        """Changes that removed an experiment of which something is left, in the order in which they were recorded."""

    async def purge(self, key: int, limit: int) -> int:
        """Deletes some rows of a removed experiment, at most `limit`; returns how many. 0: nothing is left."""

    async def removal_done(self, change: Change) -> None:
        """Writes that a removal is complete. Unlike after other changes, no status follows."""

    async def ended_before(self, before_ms: int, limit: int) -> Sequence[tuple[int, str]]:
        """Key and id of experiments that ended before a time and have nothing left to publish, the oldest first."""

    async def bytes_of(self, key: int) -> int:
        """About how many bytes an experiment takes in the file."""
