"""What steering reads and writes: changes that people request, and what they do to experiments in bulk."""

from collections.abc import Mapping, Sequence

import orjson

from ems_worker.adapters.manifest import experiments, incoming, metrics, rows, steering_reads
from ems_worker.adapters.manifest.queries import WRITES
from ems_worker.adapters.manifest.reader import ReadConnection
from ems_worker.adapters.manifest.reports import Reports
from ems_worker.adapters.manifest.writer import Step, Writer
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import Run, StopReason
from ems_worker.core.records import (
    Additions,
    Change,
    Experiment,
    MatchedPoint,
    PointIdentity,
    PointRecord,
)


class Steering(Reports):
    """The part of the manifest that the writes of steering need, beside what all services read."""

    def __init__(self, hot: ReadConnection, reports: ReadConnection, writer: Writer) -> None:
        super().__init__(hot, reports)
        self._writer = writer

    # Experiments.
    async def save_experiment(self, before: Experiment, after: Experiment) -> None:
        await self._writer.submit(_saved(before, after))

    async def plan_version(self, key: int, plan_sha: str) -> int | None:
        version: int | None = await self._hot.value("plan_version", key=key, plan_sha=plan_sha)
        return version

    async def plan(self, key: int, version: int) -> bytes | None:
        plan: bytes | None = await self._hot.value("plan", key=key, version=version)
        return plan

    # Runs.
    async def save(
        self,
        changes: Sequence[tuple[int, Run | None, Run]],
        ended_seq: Mapping[int, int],
        change: Change | None = None,
        reopened: tuple[Experiment, Experiment] | None = None,
    ) -> None:
        """Each attempt may be in `changes` once."""
        moved = () if reopened is None else (_saved(*reopened),)
        await self._writer.submit(*moved, *_run_steps(changes, ended_seq), *_progress(change))

    # Changes.
    async def record_change(self, change: Change, experiment: tuple[Experiment, Experiment] | None = None) -> Change:
        steps = [Step(WRITES["insert_change"], [incoming.new_change(change)])]
        if experiment is not None:
            steps.append(_saved(*experiment))
        await self._writer.submit(*steps)
        recorded = await self.change_from(change.request_id, change.experiment)
        assert recorded is not None
        return recorded

    async def change_from(self, request_id: str, key: int) -> Change | None:
        found = await self._hot.all(steering_reads.CHANGE_FROM, request_id=request_id, key=key)
        return incoming.change(found[0]) if found else None

    async def open_changes(self, key: int) -> Sequence[Change]:
        return [incoming.change(row) for row in await self._hot.all(steering_reads.OPEN_CHANGES, key=key)]

    async def unpublished_changes(self) -> Sequence[Change]:
        return [incoming.change(row) for row in await self._hot.all(steering_reads.UNPUBLISHED_CHANGES)]

    async def experiment_id(self, key: int) -> str:
        experiment_id: str = await self._hot.value("experiment_id", key=key)
        return experiment_id

    async def latest_changes(self, key: int, limit: int) -> Sequence[Change]:
        found = await self._hot.all(steering_reads.LATEST_CHANGES, key=key, limit=limit)
        return [incoming.change(row) for row in found]

    async def update_change(self, change: Change) -> None:
        await self._writer.submit(*_progress(change))

    async def change_published(self, number: int, documents: int) -> None:
        await self._writer.submit(Step(WRITES["publish_change"], [(number, documents)]))

    async def cancel_unstarted(self, change: Change, reason: StopReason, limit: int, at_ms: int) -> int:
        cancelled, _ = await self._writer.submit(
            Step(WRITES["cancel_unstarted"], [(change.experiment, reason.value, at_ms, limit)], guarded=False),
            # It has to follow: it counts what the statement before it changed.
            Step(WRITES["count_unstarted"], [(change.number,)], guarded=False),
        )
        return cancelled

    # Extension.
    async def publisher(self, key: int) -> str | None:
        publisher: str | None = await self._hot.value("publisher", key=key)
        return publisher

    async def unidentified(self, key: int, after_point: int, limit: int) -> Sequence[PointRecord]:
        found = await self._hot.all(steering_reads.UNIDENTIFIED, key=key, after_point=after_point, limit=limit)
        return [rows.point(row) for row in found]

    async def identify(self, key: int, identities: Sequence[PointIdentity], version: int) -> None:
        await self._writer.submit(_identified(key, identities, version))

    async def match(
        self, key: int, version: int, digests: Sequence[bytes], limit: int
    ) -> Mapping[bytes, Sequence[MatchedPoint]]:
        wanted = _list([digest.hex() for digest in digests])
        found: dict[bytes, list[MatchedPoint]] = {}
        for row in await self._hot.all(steering_reads.MATCHED, key=key, version=version, digests=wanted, limit=limit):
            point = MatchedPoint(row.point, row.replicates, row.excluded)
            found.setdefault(bytes.fromhex(row.digest), []).append(point)
        return found

    async def extend(
        self,
        change: Change,
        before: Experiment,
        after: Experiment,
        additions: Additions,
        *,
        changes: Sequence[tuple[int, Run | None, Run]] = (),
        ended_seq: Mapping[int, int] | None = None,
    ) -> None:
        steps = [_saved(before, after), Step(WRITES["grow_experiment"], [experiments.grown_experiment(before, after)])]
        if before.plan_version != after.plan_version:
            steps.append(Step(WRITES["insert_plan_version"], [experiments.new_plan_version(after)]))
        await self._writer.submit(
            *steps,
            Step(WRITES["insert_points"], [rows.new_point(after.key, point) for point in additions.points]),
            Step(WRITES["insert_pending"], [rows.new_pending(after.key, run) for run in additions.runs]),
            _identified(after.key, additions.identities, after.plan_version),
            Step(WRITES["match_points"], [(after.key, point, after.plan_version) for point in additions.matched]),
            *_run_steps(changes, ended_seq or {}),
            *_progress(change),
        )

    async def withdrawn(
        self, key: int, version: int, after: tuple[int, int], limit: int
    ) -> Sequence[tuple[Job, PointRecord]]:
        point, replicate = after
        attempts = await self._hot.all(
            steering_reads.WITHDRAWN, key=key, version=version, point=point, replicate=replicate, limit=limit
        )
        return await self._with_points(key, attempts)

    async def returned(
        self, key: int, version: int, after: tuple[int, int], *, reason: str, limit: int
    ) -> Sequence[tuple[Job, PointRecord]]:
        point, replicate = after
        attempts = await self._hot.all(
            steering_reads.RETURNED,
            key=key,
            version=version,
            point=point,
            replicate=replicate,
            reason=reason,
            limit=limit,
        )
        return await self._with_points(key, attempts)


def _list(values: Sequence[str]) -> str:
    """A list of distinct values as one value of a query, which unpacks it by json_each."""
    return orjson.dumps(list(dict.fromkeys(values))).decode()


def _saved(before: Experiment, after: Experiment) -> Step:
    return Step(WRITES["save_experiment"], [experiments.saved_experiment(before, after)])


def _identified(key: int, identities: Sequence[PointIdentity], version: int) -> Step:
    return Step(
        WRITES["insert_identities"],
        [(key, one.point, one.digest.hex(), version) for one in identities],
    )


def _progress(change: Change | None) -> list[Step]:
    if change is None:
        return []
    steps = [Step(WRITES["update_change"], [incoming.changed_change(change)])]
    if change.applied_ms is not None and change.changed:
        # An experiment that has ended is otherwise not looked at after a crash.
        steps.append(Step(WRITES["owe_status"], [(change.experiment,)]))
    return steps


def _run_steps(changes: Sequence[tuple[int, Run | None, Run]], ended_seq: Mapping[int, int]) -> list[Step]:
    updated: dict[str, list[rows.Row]] = {}
    inserted: list[rows.Row] = []
    for key, before, after in changes:
        if before is None:
            inserted.append(rows.new_run(key, after))
        else:
            statement, row = rows.update(key, before, after)
            updated.setdefault(statement, []).append(row)
    return [
        *(Step(WRITES[statement], values) for statement, values in updated.items()),
        Step(WRITES["insert_runs"], inserted),
        Step(WRITES["give_seq"], list(ended_seq.items())),
        *metrics.steps(changes),
    ]
