"""What reports and queries read of a manifest: results, points, pages, aggregates and exports, from a real file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest, reports
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason
from tests.support import manifests


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


async def test_results_come_in_the_order_of_their_ends_from_any_position(manifest: Manifest) -> None:
    """The cursor of published results pages through them."""
    record = await manifests.running(manifest)
    await manifests.complete_all(manifest, record)
    rows = await manifest.results(record.key, 2, 3)
    assert [(row.run.ended_seq, row.point.point) for row in rows] == [(3, 1), (4, 1), (5, 2)]
    assert await manifest.results(record.key, 6, 3) == []


async def test_jobs_are_paged_by_number_and_by_what_a_status_counts_them_as(manifest: Manifest) -> None:
    """Only current runs unless all attempts are requested; an infeasible job is not a failed job."""
    record = await manifests.running(manifest)
    one, other, third, *_ = await manifests.pending(manifest, record)
    retry = Run(one.point, one.replicate, 2, one.seed)
    failed = manifests.ended(other, "failed", error_kind=ErrorKind.INFEASIBLE)
    refused = manifests.ended(third, "failed", error_kind=ErrorKind.REFUSED)
    await manifest.save(
        [
            (record.key, one, manifests.ended(one, "lost", error_kind=ErrorKind.LOST, current=False)),
            (record.key, None, retry),
            (record.key, other, failed),
            (record.key, third, refused),
        ],
        {},
    )

    async def page(after: tuple[int, int, int] = (-1, -1, -1), **how: object) -> list[tuple[int, int, int]]:
        found = await manifest.jobs_page(record.key, after, 3, **how)  # type: ignore[arg-type]  # arguments by name
        return [(row.run.point, row.run.replicate, row.run.attempt) for row in found]

    assert await page() == [(0, 0, 2), (0, 1, 1), (1, 0, 1)]
    assert await page((1, 0, 1)) == [(1, 1, 1), (2, 0, 1), (2, 1, 1)]
    assert await page(attempts=True) == [(0, 0, 1), (0, 0, 2), (0, 1, 1)]
    assert await page(state="infeasible") == [(0, 1, 1)]
    assert await page(state="failed") == [(1, 0, 1)]
    assert await page(state="lost", attempts=True) == [(0, 0, 1)]
    assert await page(last=(0, 1)) == [(0, 0, 2), (0, 1, 1)]
    assert await page((0, -1, -1), last=(0, 0), attempts=True) == [(0, 0, 1), (0, 0, 2)]


async def test_points_whose_jobs_have_all_ended_by_a_position_are_found(manifest: Manifest) -> None:
    """A point with an open job, or with an end after the position, isn't among them."""
    record = await manifests.running(manifest, manifests.spec(points=3, replicates=2))
    runs = await manifests.pending(manifest, record)
    found = []
    for seq, run in enumerate((runs[n] for n in (1, 4, 0, 2, 5, 3)), 1):
        await manifest.save([(record.key, run, manifests.completed(run, seq, population=1.0))], {record.key: seq})
        found.append(list(await manifest.ended_points(record.key, [0, 1, 2], seq)))
    assert found == [[], [], [0], [0], [0, 2], [0, 1, 2]]
    assert [list(await manifest.ended_points(record.key, [2, 1, 0], seq)) for seq in (4, 5, 6)] == [
        [0],
        [2, 0],
        [2, 1, 0],
    ]


async def test_points_with_a_result_and_a_job_that_was_called_off_are_found(manifest: Manifest) -> None:
    """That job never started, so that its end has no position. Points come in pages, in order."""
    record = await manifests.running(manifest, manifests.spec(points=4, replicates=2))
    runs = await manifests.pending(manifest, record)
    called_off = [manifests.ended(run, "cancelled", stop_reason=StopReason.CANCELLED) for run in runs]
    changes = [(record.key, runs[n], manifests.completed(runs[n], seq)) for seq, n in enumerate((0, 2, 3, 6), 1)]
    await manifest.save([*changes, *((record.key, runs[n], called_off[n]) for n in (1, 4, 5, 7))], {record.key: 4})
    assert list(await manifest.called_off_points(record.key, -1, 10)) == [0, 3]
    assert list(await manifest.called_off_points(record.key, -1, 1)) == [0]
    assert list(await manifest.called_off_points(record.key, 0, 10)) == [3]
    assert list(await manifest.called_off_points(record.key, 3, 10)) == []


async def test_the_best_point_has_ended_and_has_values(manifest: Manifest) -> None:
    """There is none without a goal, while every point is open, or if nothing completed; of equals the earlier wins."""
    record = await manifests.running(manifest)
    assert await manifest.best_point(record.key) is None
    runs = await manifests.pending(manifest, record)
    values = [None, None, 4.0, 4.0, 5.0, 3.0]
    changes = [(record.key, run, manifests.completed(run, i + 1, population=values[i])) for i, run in enumerate(runs)]
    for part in (changes[:5], changes[5:]):
        await manifest.save(part, {record.key: 6})
        best = await manifest.best_point(record.key)
        assert best is not None
        assert (best.point.point, best.ended_seq, best.metrics["population"].mean) == (1, 4, 4.0)
    aimless = await manifests.running(manifest, manifests.spec("aimless", goal_metric=None, goal=None), seq=2)
    await manifests.complete_all(manifest, aimless)
    assert await manifest.best_point(aimless.key) is None
    with pytest.raises(errors.NotFound):
        await manifest.tally(aimless.key + 1)


async def test_export_gives_every_job_once_and_in_order(manifest: Manifest) -> None:
    """An export of many pages has the current attempt of each job."""
    record = await manifests.running(manifest, manifests.spec(points=1300, replicates=2))
    first = (await manifests.pending(manifest, record))[0]
    retry = Run(first.point, first.replicate, 2, first.seed)
    await manifest.save(
        [
            (record.key, first, manifests.ended(first, "lost", error_kind=ErrorKind.LOST, current=False)),
            (record.key, None, retry),
        ],
        {},
    )
    found = [(row.run.point, row.run.replicate, row.run.attempt) async for row in manifest.export(record.key)]
    assert found == [(p, r, 2 if (p, r) == (0, 0) else 1) for p in range(1300) for r in range(2)]


async def test_a_job_that_is_retried_during_an_export_isnt_exported_twice(manifest: Manifest) -> None:
    """This holds even if a page ends with the job."""
    record = await manifests.running(manifest, manifests.spec(points=reports.EXPORT_PAGE + 1, replicates=1))
    export = manifest.export(record.key)
    page = [await anext(export) for _ in range(reports.EXPORT_PAGE)]
    last = page[-1].run
    retry = Run(last.point, last.replicate, 2, last.seed)
    await manifest.save(
        [
            (record.key, last, manifests.ended(last, "lost", error_kind=ErrorKind.LOST, current=False)),
            (record.key, None, retry),
        ],
        {},
    )
    assert [row.point.point async for row in export] == [reports.EXPORT_PAGE]
