"""The part of the port to the manifest that steering needs: changes that people request, and extensions."""

from collections.abc import Mapping, Sequence
from typing import Protocol

from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason
from ems_worker.core.records import (
    Additions,
    Change,
    Experiment,
    MatchedPoint,
    PointIdentity,
    PointRecord,
)

# A changed attempt: the experiment's key, the run before (None for a new row), and the run after.
RunChange = tuple[int, Run | None, Run]


class SteeringManifest(Protocol):
    """See `ports.Manifest`."""

    async def record_change(self, change: Change, experiment: tuple[Experiment, Experiment] | None = None) -> Change:
        """Records the change, and the experiment (before, after) as `save_experiment` does, in one transaction.

        Returns it with its number. Raises errors.ManifestConflict if its request has one for this experiment already.
        """

    async def change_from(self, request_id: str, key: int) -> Change | None:
        """The change that a request made of the first experiment whose key is at least this; None: of none."""

    async def open_changes(self, key: int) -> Sequence[Change]:
        """Changes of the experiment that are not applied, in the order in which they were recorded."""

    async def unpublished_changes(self) -> Sequence[Change]:
        """Changes with a document that is not published, in the order in which they were recorded."""

    async def experiment_id(self, key: int) -> str:
        """The id of a recorded experiment."""

    async def latest_changes(self, key: int, limit: int) -> Sequence[Change]:
        """The last changes of the experiment, newest first."""

    async def update_change(self, change: Change) -> None:
        """Writes how far the change is carried out. `published` never decreases."""

    async def change_published(self, number: int, documents: int) -> None:
        """Records that so many documents of the change are published, and leaves all else of it as it is."""

    async def cancel_unstarted(self, change: Change, reason: StopReason, limit: int, at_ms: int) -> int:
        """Cancels up to `limit` jobs of the change's experiment that never started; returns how many.

        These are jobs whose first attempt is pending. They get no position among the ends. The counts of the change,
        from pending to cancelled, are added to in the same transaction.
        """

    async def commonest_error(self, key: int) -> tuple[ErrorKind, str | None, int] | None:
        """The commonest kind of error of jobs that count, its commonest message, and how many jobs have that one."""

    # Extension.
    async def publisher(self, key: int) -> str | None:
        """Who published the experiment's plan; None if publishers have no names."""

    async def unidentified(self, key: int, after_point: int, limit: int) -> Sequence[PointRecord]:
        """Points after a point that have no identity yet, in order."""

    async def identify(self, key: int, identities: Sequence[PointIdentity], version: int) -> None:
        """Records the identities of points that have none. `version` is the last version of the plan that has them."""

    async def match(
        self, key: int, version: int, digests: Sequence[bytes], limit: int
    ) -> Mapping[bytes, Sequence[MatchedPoint]]:
        """Points with these digests that this version of the plan doesn't have, in order, `limit` of each at most."""

    async def extend(
        self,
        change: Change,
        before: Experiment,
        after: Experiment,
        additions: Additions,
        *,
        changes: Sequence[RunChange] = (),
        ended_seq: Mapping[int, int] | None = None,
    ) -> None:
        """Writes one part of an extension and the progress of its change, in one transaction.

        Of the experiment, it writes all that `save_experiment` does and points, jobs, replicates, expanded_points and
        plan_sha, guarded by those before; with another plan_version also the plan. `changes`, `ended_seq`: see `save`.
        """

    async def withdrawn(
        self, key: int, version: int, after: tuple[int, int], limit: int
    ) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs after a (point, replicate) whose points this version of the plan doesn't have, in order."""

    async def returned(
        self, key: int, version: int, after: tuple[int, int], *, reason: str, limit: int
    ) -> Sequence[tuple[Job, PointRecord]]:
        """Jobs after a (point, replicate) that are excluded for this reason though this version has their points."""
