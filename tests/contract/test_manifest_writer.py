"""The writer: requests share transactions, a faulty request fails alone, and cancelled callers do no harm."""

import asyncio
import itertools
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest, writer
from ems_worker.adapters.manifest.queries import Query
from ems_worker.adapters.manifest.writer import Step
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment
from tests.support import manifests, wait


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


async def _pending(manifest: Manifest, record: Experiment) -> list[Run]:
    return [one.current for one, _ in await manifest.due(record.key, 0, 1000)]


async def _states(manifest: Manifest, record: Experiment) -> list[RunState]:
    rows = await manifest.jobs_page(record.key, (-1, -1, -1), 1000)
    return [row.run.state for row in rows]


async def test_concurrent_writes_share_transactions(manifest: Manifest) -> None:
    """Two hundred concurrent saves need a handful of commits, each of which is reported to `on_commit`."""
    record = await manifests.running(manifest, manifests.spec(points=100, replicates=2))
    commits: list[tuple[int, int]] = []
    manifest.counters.on_commit = lambda seconds, *sizes: commits.append(sizes) if seconds > 0 else None
    before = manifest.counters.commits
    await asyncio.gather(
        *(manifest.save([(record.key, run, manifests.claimed(run))], {}) for run in await _pending(manifest, record))
    )
    assert manifest.counters.commits - before <= 3
    assert sum(requests for requests, _ in commits) == sum(rows for _, rows in commits) == 200
    assert set(await _states(manifest, record)) == {RunState.SUBMITTING}


async def test_only_the_faulty_request_fails(manifest: Manifest) -> None:
    """A conflict among many concurrent saves is raised to its own caller; the other writes succeed."""
    record = await manifests.running(manifest, manifests.spec(points=20, replicates=1))
    runs = await _pending(manifest, record)
    saves = [manifest.save([(record.key, run, manifests.claimed(run))], {}) for run in runs]
    stale = replace(manifests.claimed(runs[3]), state=RunState.SUBMITTED)
    saves.insert(10, manifest.save([(record.key, stale, replace(stale, state=RunState.RUNNING))], {}))
    answers = await asyncio.gather(*saves, return_exceptions=True)
    assert [type(answer) for answer in answers if answer is not None] == [errors.ManifestConflict]
    assert answers[10] is not None
    assert set(await _states(manifest, record)) == {RunState.SUBMITTING}
    assert manifest.counters.failures == 1


async def test_a_value_that_no_column_can_hold_fails_alone(manifest: Manifest) -> None:
    """An integer over 64 bits, or text that isn't Unicode, affects no other request."""
    answers = await asyncio.gather(
        manifest.remember("before", "1"),
        manifest.record_status(2**70, 1, b"{}"),
        manifest.remember("surrogate", "\ud800"),
        manifest.remember("after", "2"),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [
        type(None),
        errors.ManifestConflict,
        errors.ManifestConflict,
        type(None),
    ]
    assert await manifest.remembered("before") == "1"
    assert await manifest.remembered("after") == "2"


async def test_writes_are_carried_out_in_the_order_of_the_calls(manifest: Manifest) -> None:
    """Successive changes of one run may be in flight at once, and share a transaction."""
    record = await manifests.running(manifest)
    first = (await _pending(manifest, record))[0]
    path = [first, manifests.claimed(first)]
    path.append(replace(path[-1], state=RunState.SUBMITTED))
    path.append(replace(path[-1], state=RunState.RUNNING, started_ms=5))
    path.append(manifests.completed(path[-1], 1, population=2.0))
    before = manifest.counters.commits
    async with asyncio.TaskGroup() as group:
        for old, new in itertools.pairwise(path):
            group.create_task(manifest.save([(record.key, old, new)], {record.key: 1} if new.ended else {}))
    assert manifest.counters.commits == before + 1
    assert manifest.counters.failures == 0
    assert (await _states(manifest, record))[0] is RunState.COMPLETED


async def test_a_full_disk_delays_writes_and_loses_none(manifest: Manifest) -> None:
    """No write returns while there is no room; all of them are carried out once there is."""
    record = await manifests.running(manifest)
    first, second, *_ = await _pending(manifest, record)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file of this process may grow, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (manifest.path.with_name("manifest.db-wal").stat().st_size, hard))
    try:
        writes = [
            asyncio.create_task(manifest.save([(record.key, run, manifests.claimed(run))], {}))
            for run in (first, second)
        ]
        await wait.until(lambda: manifest.write_problem, what="the writer to notice")
        assert await _states(manifest, record) == [RunState.PENDING] * 6
        assert not any(write.done() for write in writes)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    await asyncio.gather(*writes)
    assert manifest.write_problem is None
    assert (await _states(manifest, record)).count(RunState.SUBMITTING) == 2


async def test_a_manifest_on_a_full_disk_can_be_closed(tmp_path: Path) -> None:
    """A worker on a full disk can still stop; callers that wait learn that nothing was written."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        record = await manifests.running(manifest)
        (first, *_) = await _pending(manifest, record)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (manifest.path.with_name("manifest.db-wal").stat().st_size, hard))
        try:
            write = asyncio.create_task(manifest.save([(record.key, first, manifests.claimed(first))], {}))
            await wait.until(lambda: manifest.write_problem, what="the writer to notice")
            await manifest.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        with pytest.raises(errors.ManifestUnusable):
            await write


async def test_cancelled_callers_break_no_transaction(manifest: Manifest) -> None:
    """Whether or not cancelled writes are carried out, all other writes are on disk and the manifest still works."""
    record = await manifests.running(manifest, manifests.spec(points=200, replicates=1))
    runs = await _pending(manifest, record)
    saves = []
    for index, run in enumerate(runs):
        saves.append(asyncio.create_task(manifest.save([(record.key, run, manifests.claimed(run))], {})))
        if index % 10 == 0:
            await asyncio.sleep(0)
        if index % 3 == 0:
            saves[index // 2].cancel()
    answers = await asyncio.gather(*saves, return_exceptions=True)
    assert {type(answer) for answer in answers} == {type(None), asyncio.CancelledError}
    states = await _states(manifest, record)
    for answer, state in zip(answers, states, strict=True):
        assert state is RunState.SUBMITTING or answer is not None
    await manifest.remember("still", "works")


async def test_a_caller_cancelled_in_the_transaction_leaves_its_write_whole(manifest: Manifest) -> None:
    """Either all rows of a cancelled write are written, or none."""
    record = await manifests.running(manifest, manifests.spec(points=500, replicates=1))
    runs = await _pending(manifest, record)
    save = asyncio.create_task(manifest.save([(record.key, run, manifests.claimed(run)) for run in runs], {}))
    for _ in range(4):
        await asyncio.sleep(0)
    save.cancel()
    await asyncio.gather(save, return_exceptions=True)
    await manifest.remember("next", "commit")
    assert len(set(await _states(manifest, record))) == 1


async def test_a_long_read_blocks_neither_writes_nor_hot_reads(manifest: Manifest) -> None:
    """During an export and a tally, saves commit and are visible to hot reads."""
    record = await manifests.running(manifest, manifests.spec(points=2500, replicates=4))
    export = manifest.export(record.key)
    await anext(export)
    tally = asyncio.create_task(manifest.tally(record.key))
    first = (await _pending(manifest, record))[0]
    await manifest.save([(record.key, first, manifests.claimed(first))], {})
    assert (await manifest.jobs([(record.key, 0, 0)]))[record.key, 0, 0].current.state is RunState.SUBMITTING
    assert sum((await tally).counts.values()) == 10_000
    assert sum([1 async for _ in export]) == 9_999


async def test_an_abandoned_export_leaves_the_manifest_usable(manifest: Manifest) -> None:
    """The next query on the same connection runs at once."""
    record = await manifests.running(manifest, manifests.spec(points=1500, replicates=1))
    async for row in manifest.export(record.key):
        if row.point.point == 1200:
            break
    await wait.until(lambda: manifest.tally(record.key), what="a tally")


_STATEMENTS = [Query("update", "U :rows", 2), Query("insert", "I :rows", 2), Query("other table", "O :rows", 1)]


@given(
    st.lists(
        st.tuples(st.sampled_from(_STATEMENTS), st.lists(st.integers(0, 5), min_size=1, max_size=4, unique=True)),
        max_size=12,
    )
)
def test_merging_keeps_the_order_of_the_changes_of_each_row(plan: list[tuple[Query, list[int]]]) -> None:
    """Statements are joined across requests, and yet each row changes in the order of the requests."""
    steps = [
        Step(query, [(*(number, 0)[: query.key], index) for number in numbers])
        for index, (query, numbers) in enumerate(plan)
    ]
    merged = writer.merge(steps)
    for part, _ in merged:
        keys = [row[: part.query.key] for row in part.rows]
        assert len(keys) == len(set(keys))

    def history(parts: list[tuple[Query, list[tuple[int, ...]]]]) -> dict[tuple[int, ...], list[tuple[str, int]]]:
        found: dict[tuple[int, ...], list[tuple[str, int]]] = {}
        for query, rows in parts:
            for row in rows:
                found.setdefault(row[: query.key], []).append((query.name, row[-1]))
        return found

    assert history([(step.query, list(step.rows)) for step in steps]) == history(
        [(part.query, part.rows) for part, _ in merged]
    )
    assert sorted(id(step) for _, homes in merged for step in homes) == sorted(map(id, steps))


def test_equal_statements_about_different_rows_become_one() -> None:
    """Ten saves that change and add runs become two statements, plus one for each end of a job of their experiment."""
    update, insert, end = _STATEMENTS
    steps = []
    for number in range(10):
        steps += [Step(update, [(number, 0)]), Step(insert, [(number, 1)]), Step(end, [(7, number)])]
    assert [part.query.name for part, _ in writer.merge(steps)] == ["update", "insert", *["other table"] * 10]
