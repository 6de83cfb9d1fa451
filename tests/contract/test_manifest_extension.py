"""What a manifest does when the plan of an experiment is extended, in a real file."""

from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import Additions, Change, Experiment, MatchedPoint, PointIdentity
from tests.support import manifests


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


def digest(number: int) -> bytes:
    return bytes([number] * 16)


def identities(numbers: Sequence[int], digests: Sequence[int] | None = None) -> list[PointIdentity]:
    """Identities of points; those with equal digests are equal."""
    return [PointIdentity(point, digest(of)) for point, of in zip(numbers, digests or numbers, strict=True)]


async def recorded(manifest: Manifest, record: Experiment, request_id: str = "r-1") -> Change:
    """A change that extends the experiment."""
    change = Change(
        request_id, record.key, "extend", '{"replicates": 3}', manifests.NOW_MS, record.state, record.round, revision=0
    )
    return await manifest.record_change(change)


async def versioned(manifest: Manifest, record: Experiment, change: Change) -> Experiment:
    """The experiment with the next version of its plan, which has other parameters and replicates."""
    spec = replace(
        record.spec, plan=b"extended", plan_sha="cd" * 32, replicates=3, parameters={"food": "a.food", "heat": "heat"}
    )
    after = replace(record, spec=spec, plan_version=record.plan_version + 1)
    await manifest.extend(change, record, after, Additions())
    return after


async def grown(
    manifest: Manifest, before: Experiment, change: Change, points: Sequence[int], matched: Sequence[int] = ()
) -> Experiment:
    """The experiment with these new points, of three jobs each, and with points that the version has as well."""
    rows, runs = manifests.jobs_of(points, 3)
    spec = replace(before.spec, points=before.spec.points + len(rows), jobs=before.spec.jobs + len(runs))
    after = replace(before, spec=spec, expanded_points=before.expanded_points + len(rows))
    await manifest.extend(change, before, after, Additions(rows, runs, identities(points), matched))
    return after


async def test_points_get_an_identity_once(manifest: Manifest) -> None:
    """Those that have none are found in order, a part at a time."""
    record = await manifests.running(manifest)
    assert [point.point for point in await manifest.unidentified(record.key, -1, 2)] == [0, 1]
    await manifest.identify(record.key, identities([0, 1]), 1)
    assert [point.point for point in await manifest.unidentified(record.key, -1, 9)] == [2]
    assert list(await manifest.unidentified(record.key, 2, 9)) == []
    with pytest.raises(errors.ManifestConflict):
        await manifest.identify(record.key, identities([1, 2]), 1)
    assert [point.point for point in await manifest.unidentified(record.key, -1, 9)] == [2]


async def test_equal_points_are_found_in_order_until_a_version_has_them(manifest: Manifest) -> None:
    """With their number of replicates, and the reason for which none of their jobs counts."""
    record = await manifests.running(manifest, manifests.spec(points=4))
    await manifest.identify(record.key, identities(range(4), [7, 8, 7, 7]), 1)
    (first, _), (second, _) = await manifest.jobs_after(record.key, (1, -1), 2)
    for stored in (first, second):
        excluded = job.excluded(stored, "bad disk")
        assert excluded is not None
        await manifest.save([(record.key, stored.current, excluded.current)], {})
    wanted = [digest(7), digest(8), digest(7), digest(9)]
    assert await manifest.match(record.key, 2, wanted, 2) == {
        digest(7): [MatchedPoint(0, 2), MatchedPoint(2, 2)],
        digest(8): [MatchedPoint(1, 2, "bad disk")],
    }
    assert await manifest.match(record.key, 1, wanted, 2) == {}
    change = await recorded(manifest, record)
    after = await versioned(manifest, record, change)
    await manifest.extend(change, after, after, Additions(matched=(0, 1)))
    assert await manifest.match(record.key, 2, wanted, 9) == {digest(7): [MatchedPoint(2, 2), MatchedPoint(3, 2)]}


async def test_a_version_of_the_plan_takes_the_place_of_the_one_before(manifest: Manifest) -> None:
    """Each keeps its text and its identity; the base configuration is that of the first."""
    record = await manifests.running(manifest)
    after = await versioned(manifest, record, await recorded(manifest, record))
    assert await manifest.experiment("reef") == after
    assert (after.plan_version, after.spec.base) == (2, record.spec.base)
    assert [await manifest.plan(record.key, version) for version in (1, 2, 3)] == [record.spec.plan, b"extended", None]
    assert [await manifest.plan_version(record.key, sha * 32) for sha in ("ab", "cd", "ef")] == [1, 2, None]
    assert [found.spec.plan for found in await manifest.unfinished()] == [b"extended"]


async def test_points_jobs_and_the_progress_of_the_change_are_recorded_together(manifest: Manifest) -> None:
    """Or nothing is: the same part can't be recorded twice."""
    record = await manifests.running(manifest)
    await manifest.identify(record.key, identities(range(3)), 1)
    change = await recorded(manifest, record)
    version = await versioned(manifest, record, change)
    progress = replace(change, judged=(5, -1), added=2, counts={"new": {"pending": 6}})
    after = await grown(manifest, version, progress, [3, 4], matched=[1])
    assert await manifest.experiment("reef") == after
    assert (after.spec.points, after.spec.jobs, after.expanded_points) == (5, 12, 5)
    assert [found for found, _ in await manifest.jobs_after(record.key, (3, 1), 1)] == [
        job.Job((job.first(3, 2, 1002),))
    ]
    assert await manifest.change_from("r-1", 0) == progress
    assert (await manifest.tally(record.key)).by_bucket[Bucket.PENDING] == 12
    with pytest.raises(errors.ManifestConflict):
        await grown(manifest, version, replace(progress, added=99), [3, 4])
    with pytest.raises(errors.ManifestConflict):
        await grown(manifest, version, replace(progress, added=99), [5])
    assert await manifest.experiment("reef") == after
    assert await manifest.change_from("r-1", 0) == progress


async def test_jobs_of_points_that_a_version_lacks_or_has_again(manifest: Manifest) -> None:
    """In order, a part at a time."""
    record = await manifests.running(manifest, manifests.spec(points=4))
    await manifest.identify(record.key, identities(range(4)), 1)
    change = await recorded(manifest, record)
    version = await grown(manifest, await versioned(manifest, record, change), change, [4], matched=[1])

    async def withdrawn(after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
        return [stored.key for stored, _ in await manifest.withdrawn(record.key, 2, after, limit)]

    async def returned(after: tuple[int, int], limit: int, reason: str = "withdrawn") -> list[tuple[int, int]]:
        found = await manifest.returned(record.key, 2, after, reason=reason, limit=limit)
        assert all(point.point == stored.key[0] for stored, point in found)
        return [stored.key for stored, _ in found]

    assert await withdrawn((-1, -1), 3) == [(0, 0), (0, 1), (2, 0)]
    assert await withdrawn((2, 0), 9) == [(2, 1), (3, 0), (3, 1)]
    assert await returned((-1, -1), 9) == []
    for stored, _ in await manifest.withdrawn(record.key, 2, (-1, -1), 9):
        excluded = job.excluded(stored, "withdrawn")
        assert excluded is not None
        await manifest.save([(record.key, stored.current, excluded.current)], {})
    assert await returned((-1, -1), 9) == []
    await manifest.extend(change, version, version, Additions(matched=[0, 3]))
    assert await returned((-1, -1), 3) == [(0, 0), (0, 1), (3, 0)]
    assert await returned((3, 0), 3) == [(3, 1)]
    assert await returned((-1, -1), 9, "bad disk") == []


async def test_why_a_change_was_refused_is_kept(manifest: Manifest) -> None:
    """It is found after the change was recorded."""
    record = await manifests.running(manifest)
    change = await recorded(manifest, record)
    refused = replace(change, judged=None, changed=False, refused="it would have 12 jobs")
    await manifest.update_change(refused)
    assert await manifest.open_changes(record.key) == [refused]


async def test_the_publisher_of_an_experiment(manifest: Manifest) -> None:
    """It is that of the plan's message."""
    record = await manifests.running(manifest)
    assert await manifest.publisher(record.key) is None
    named = manifests.submission(2, "coast", publisher="evolution")
    await manifest.record_submission(named, manifests.spec("coast"))
    coast = await manifest.experiment("coast")
    assert coast is not None
    assert await manifest.publisher(coast.key) == "evolution"
