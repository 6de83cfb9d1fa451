"""Runs and jobs in the manifest: what is due, guarded changes, pages, counts and aggregates, on a real file."""

import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import astuple, replace

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import DueRuns, Experiment
from tests.support import manifests
from tests.support.manifests import NOW_MS


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


async def _pending(manifest: Manifest, record: Experiment) -> list[Run]:
    return [one.current for one, _ in await manifest.due(record.key, NOW_MS, 1000)]


def _lost(before: Run) -> Run:
    return replace(before, state=RunState.LOST, finished_ms=NOW_MS, error_kind=ErrorKind.LOST, current=False)


async def test_every_field_of_a_run_is_read_back(manifest: Manifest) -> None:
    """A run is equal to itself after an insertion and after an update."""
    record = await manifests.running(manifest)
    first = (await _pending(manifest, record))[0]
    full = replace(
        manifests.claimed(first),
        state=RunState.FAILED,
        started_ms=NOW_MS + 5,
        finished_ms=NOW_MS + 7,
        elapsed_ms=77,
        stop_reason=StopReason.TIMEOUT,
        error_kind=ErrorKind.TIMEOUT,
        error_message="stopped at its time limit: ä\n\U0001f41f",
        retryable=False,
        metrics={"a b": 1e-300, "n": 3, "none": None},
        artifacts={"series": "s3://bucket/x"},
        model_version="fish-2",
        ended_seq=1,
        job_revision=1,
    )
    await manifest.save([(record.key, first, full)], {record.key: 1})
    place = (record.key, first.point, first.replicate)
    assert (await manifest.jobs([place]))[place].runs == (full,)
    second = replace(full, attempt=2, ended_seq=None, current=False, metrics={"x": None, "z": -1.5}, waiting=None)
    await manifest.save([(record.key, None, second)], {})
    assert (await manifest.jobs([place]))[place].runs[1] == second


async def test_due_jobs_come_in_order_of_time_and_number_with_all_their_attempts(manifest: Manifest) -> None:
    """A retry that is due later comes later, and not before its time."""
    record = await manifests.running(manifest)
    first = (await _pending(manifest, record))[0]
    await manifest.save([(record.key, first, manifests.claimed(first))], {})
    retry = Run(first.point, first.replicate, 2, first.seed, due_ms=NOW_MS + 500)
    lost = _lost(manifests.claimed(first))
    await manifest.save([(record.key, manifests.claimed(first), lost), (record.key, None, retry)], {})

    assert [one.key for one, _ in await manifest.due(record.key, NOW_MS, 3)] == [(0, 1), (1, 0), (1, 1)]
    found = await manifest.due(record.key, NOW_MS + 500, 100)
    assert [one.key for one, _ in found] == [(0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (0, 0)]
    assert found[-1][0].runs == (lost, retry)
    assert found[-1][1].params == {"food": 0, "heat": 0.0}
    assert await manifest.due_counts([record.key], NOW_MS, 100) == {record.key: DueRuns(5, 0)}
    assert await manifest.due(record.key + 1, NOW_MS, 10) == []
    other = await manifests.running(manifest, manifests.spec("other", points=1), seq=2)
    both = [other.key, record.key]
    counts = {other.key: DueRuns(2, 0), record.key: DueRuns(4, 0)}
    assert await manifest.due_counts(both, NOW_MS + 500, 4) == counts
    assert await manifest.due_counts([], NOW_MS, 4) == {}


async def test_the_next_due_time_is_that_of_the_first_pending_run(manifest: Manifest) -> None:
    """It is given whether or not any run is due."""
    record = await manifests.running(manifest, manifests.spec("other", points=1))
    for pending in await _pending(manifest, record):
        await manifest.save([(record.key, pending, replace(pending, due_ms=NOW_MS + 9 + pending.replicate))], {})
    assert await manifest.due_counts([record.key], NOW_MS, 4) == {record.key: DueRuns(0, NOW_MS + 9)}
    assert await manifest.due_counts([record.key + 1], NOW_MS, 4) == {record.key + 1: DueRuns(0, None)}


async def test_due_jobs_of_several_experiments_are_those_of_each(manifest: Manifest) -> None:
    """Each has at most as many as asked for, in order; also jobs of which more is known than that they are pending."""
    record = await manifests.running(manifest)
    other = await manifests.running(manifest, manifests.spec("other", points=1), seq=2)
    first = (await _pending(manifest, record))[0]
    lost, retry = _lost(manifests.claimed(first)), Run(first.point, first.replicate, 2, first.seed)
    await manifest.save([(record.key, first, manifests.claimed(first))], {})
    await manifest.save([(record.key, manifests.claimed(first), lost), (record.key, None, retry)], {})
    keys = [other.key, record.key, record.key + 9]
    found = await manifest.due_of(keys, NOW_MS, 3)
    assert found == {key: await manifest.due(key, NOW_MS, 3) for key in keys}
    assert [len(found[key]) for key in keys] == [2, 3, 0]
    assert found[record.key][0][0].runs == (lost, retry)


async def test_a_change_applies_only_to_the_expected_state(manifest: Manifest) -> None:
    """One stale change refuses everything that is saved with it, including the positions of ends."""
    record = await manifests.running(manifest)
    one, other, *_ = await _pending(manifest, record)
    await manifest.save([(record.key, one, manifests.claimed(one))], {})
    ended = manifests.completed(manifests.claimed(other), 1, population=1.0)
    with pytest.raises(errors.ManifestConflict, match="claim_runs: 0 of 1"):
        await manifest.save([(record.key, other, ended), (record.key, one, manifests.claimed(one))], {record.key: 1})
    stored = await manifest.jobs([(record.key, other.point, other.replicate)])
    assert stored[record.key, other.point, other.replicate].current == other
    found = await manifest.experiment("reef")
    assert found is not None
    assert found.ended_seq == 0


@pytest.mark.parametrize(
    ("wrong", "constraint"),
    [
        ({"state": RunState.COMPLETED}, "finished_when_ended"),
        ({"finished_ms": 5}, "finished_when_ended"),
        ({"current": False}, "pending_stands"),
        ({"state": RunState.RUNNING, "ended_seq": 1, "job_revision": 1}, "end_is_numbered"),
        ({"state": RunState.COMPLETED, "finished_ms": 5, "error_kind": ErrorKind.LOST}, "error_kind"),
    ],
)
async def test_rows_that_contradict_themselves_are_refused(
    manifest: Manifest, wrong: dict[str, object], constraint: str
) -> None:
    """The schema refuses rows that correct code never writes."""
    record = await manifests.running(manifest)
    first = (await _pending(manifest, record))[0]
    broken = replace(first, **wrong)
    with pytest.raises(errors.ManifestConflict, match=constraint):
        await manifest.save([(record.key, first, broken)], {})


async def test_an_end_has_a_position_of_its_own(manifest: Manifest) -> None:
    """No two ends of an experiment share a position, and runs of missing points can't be saved."""
    record = await manifests.running(manifest)
    one, other, *_ = await _pending(manifest, record)
    changes = [(record.key, run, manifests.completed(run, 1, population=1.0)) for run in (one, other)]
    with pytest.raises(errors.ManifestConflict, match="ended_seq"):
        await manifest.save(changes, {record.key: 1})
    with pytest.raises(errors.ManifestConflict, match="FOREIGN KEY"):
        await manifest.save([(record.key, None, replace(one, point=99))], {})


async def test_one_save_changes_the_current_attempt(manifest: Manifest) -> None:
    """A late winner replaces the current attempt with both rows in one save."""
    record = await manifests.running(manifest)
    first = (await _pending(manifest, record))[0]
    place = (record.key, first.point, first.replicate)
    lost = _lost(manifests.claimed(first))
    retry = Run(first.point, first.replicate, 2, first.seed)
    await manifest.save([(record.key, first, lost), (record.key, None, retry)], {})
    won = replace(manifests.completed(lost, 1, population=3.0), current=True, error_kind=None)
    dropped = replace(retry, state=RunState.CANCELLED, current=False, finished_ms=NOW_MS)
    await manifest.save([(record.key, lost, won), (record.key, retry, dropped)], {record.key: 1})
    assert (await manifest.jobs([place]))[place].current == won
    assert [row.run for row in await manifest.results(record.key, 0, 10)] == [won]


async def test_jobs_are_found_by_the_hundreds_and_absent_ones_left_out(manifest: Manifest) -> None:
    """One call reads jobs of several experiments."""
    one = await manifests.running(manifest, manifests.spec("one", points=300, replicates=1))
    two = await manifests.running(manifest, manifests.spec("two", points=300, replicates=1), seq=2)
    keys = [(record.key, point, 0) for record in (one, two) for point in range(400)]
    found = await manifest.jobs(keys)
    assert set(found) == {(record.key, point, 0) for record in (one, two) for point in range(300)}
    assert await manifest.jobs([]) == {}


async def test_open_jobs_have_an_attempt_that_was_announced_and_has_not_ended(manifest: Manifest) -> None:
    """Recovery gets the attempts in submitting, submitted or running, with the other attempts of their jobs."""
    record = await manifests.running(manifest)
    runs = await _pending(manifest, record)
    submitting, submitted, begun, ended, *_ = runs
    await manifest.save(
        [
            (record.key, submitting, manifests.claimed(submitting)),
            (record.key, submitted, replace(manifests.claimed(submitted), state=RunState.SUBMITTED)),
            (record.key, begun, replace(manifests.claimed(begun), state=RunState.RUNNING, started_ms=NOW_MS)),
            (record.key, ended, manifests.completed(ended, 1, population=0.5)),
        ],
        {record.key: 1},
    )
    found = await manifest.open_jobs(record.key)
    assert [(one.key, one.current.state.value, point.point) for one, point in found] == [
        ((0, 0), "submitting", 0),
        ((0, 1), "submitted", 0),
        ((1, 0), "running", 1),
    ]


async def test_counts_and_aggregates_are_those_of_the_core(manifest: Manifest) -> None:
    """Tally, points and the best point agree with the core's Aggregate to the last bit."""
    points, replicates = 40, 5
    record = await manifests.running(manifest, manifests.spec(points=points, replicates=replicates, goal="minimize"))
    draw = random.Random(7)
    whole = Aggregate()
    by_point: dict[int, Aggregate] = {}
    changes = []
    for index, run in enumerate(await _pending(manifest, record)):
        value = draw.choice([None, draw.uniform(-1, 1) * 10 ** draw.randint(-9, 9)])
        whole = whole.add(value)
        by_point[run.point] = by_point.get(run.point, Aggregate()).add(value)
        changes.append((record.key, run, manifests.completed(run, index + 1, population=value, other=1.0)))
    last = changes.pop()
    await manifest.save(changes, {record.key: len(changes)})
    tally = await manifest.tally(record.key)
    assert tally.by_bucket[Bucket.PENDING] == 1
    assert tally.counts[Bucket.COMPLETED] == points * replicates - 1
    rows = await manifest.points_page(record.key, points - 3, 5)
    assert [(row.point.point, row.ended_seq) for row in rows] == [(38, 195), (39, None)]

    await manifest.save([last], {record.key: points * replicates})
    merged = (await manifest.tally(record.key)).metrics["population"]
    assert astuple(merged) == pytest.approx(astuple(whole))
    for row in await manifest.points(record.key, range(points)):
        assert row.metrics == {"population": by_point[row.point.point]}
        assert row.counts == {Bucket.COMPLETED: replicates}
    best = await manifest.best_point(record.key)
    assert best is not None
    assert best.point.point == min((one.mean, point) for point, one in by_point.items() if one.n)[1]


async def test_an_ended_experiment_with_an_open_run_is_loaded_again(manifest: Manifest) -> None:
    """A run that no job needs any more still has to be stopped after a restart."""
    record = await manifests.running(manifest, manifests.spec(points=1, replicates=1))
    ((pending, _),) = await manifest.due(record.key, 0, 1)
    claimed = manifests.claimed(pending.current)
    await manifest.save([(record.key, pending.current, claimed)], {})
    await manifests.moved(manifest, record, ExperimentState.CANCELLED, at_ms=9)
    await manifest.record_status(record.key, 9, b"{}")
    await manifest.revision_published(record.key, 9)
    assert [one.key for one in await manifest.unfinished()] == [record.key]
    ended = replace(claimed, state=RunState.CANCELLED, finished_ms=9)
    await manifest.save([(record.key, claimed, ended)], {})
    assert list(await manifest.unfinished()) == []
