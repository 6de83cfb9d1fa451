"""The manifest under the load of an experiment: few commits, no scans where work waits for the answer."""

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest
from msgspec.structs import replace

from ems_worker.adapters.manifest import Manifest
from ems_worker.adapters.manifest.queries import READS, WRITES
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.base.ports import RunChange
from tests.support import manifests

POINTS, REPLICATES, BATCH, PART = 4000, 5, 500, 20


@pytest.mark.long
async def test_twenty_thousand_jobs_from_expansion_to_their_ends(tmp_path: Path) -> None:
    """Saves of 25 callers at once share commits: 60,000 changes in 3,000 requests take a few hundred of them."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        new = manifests.spec(points=POINTS, replicates=REPLICATES)
        record = await manifests.accepted(manifest, new)
        for start in range(0, POINTS, 1000):
            points, runs = manifests.jobs_of(range(start, start + 1000), REPLICATES)
            await manifest.expand(record.key, points, runs, start + 1000)
        await manifests.moved(manifest, record, ExperimentState.RUNNING, at_ms=1)
        commits, requests = manifest.counters.commits, manifest.counters.requests

        async def save(changes: list[RunChange]) -> None:
            parts = [changes[start : start + PART] for start in range(0, len(changes), PART)]
            ends = [[after.ended_seq for _, _, after in part if after.ended_seq] for part in parts]
            saves = [
                manifest.save(part, {record.key: max(seqs)} if seqs else {})
                for part, seqs in zip(parts, ends, strict=True)
            ]
            await asyncio.gather(*saves)

        ended = 0
        while due := await manifest.due(record.key, manifests.NOW_MS, BATCH):
            pending = [one.current for one, _ in due]
            claimed = [manifests.claimed(one) for one in pending]
            submitted = [replace(one, state=RunState.SUBMITTED) for one in claimed]
            completed = [
                manifests.completed(one, ended + index, population=float(index))
                for index, one in enumerate(submitted, start=1)
            ]
            for before, after in ((pending, claimed), (claimed, submitted), (submitted, completed)):
                await save([(record.key, old, new) for old, new in zip(before, after, strict=True)])
            ended += len(due)

        tally = await manifest.tally(record.key)
        assert tally.counts == {Bucket.COMPLETED: POINTS * REPLICATES}
        assert manifest.counters.requests - requests == 3000
        assert manifest.counters.commits - commits <= 300
        assert manifest.counters.failures == 0
        results = await manifest.results(record.key, ended - 10, 100)
        assert [row.run.ended_seq for row in results] == list(range(ended - 9, ended + 1))


async def test_a_pending_job_takes_less_than_a_hundred_bytes(tmp_path: Path) -> None:
    """A job takes less than a hundred bytes on disk, its indexes and its share of its point included."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path) as manifest:
        await manifests.running(manifest, manifests.spec(points=POINTS, replicates=REPLICATES))
    assert path.stat().st_size < 100 * POINTS * REPLICATES


# These are not made for batches; durations looks at the latest experiments only, any_parked at one row.
RARE = {"counted", "best_point", "parked", "durations", "any_parked", "commonest_error"}


@pytest.mark.parametrize("name", sorted(set(READS) - RARE))
async def test_a_read_of_every_batch_uses_an_index(tmp_path: Path, name: str) -> None:
    """No read that happens for every batch scans a whole table."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path):
        pass
    connection = sqlite3.connect(path)
    values = dict.fromkeys(re.findall(r":(\w+)", READS[name].text), 1)
    try:
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {READS[name].text}", values)]
    finally:
        connection.close()
    assert not [
        step
        for step in plan
        if re.match(r"SCAN (runs|points|experiments|plans|submissions|remembered|parked_events)$", step)
    ]


async def test_an_open_job_of_a_point_is_found_in_the_order_of_the_table(tmp_path: Path) -> None:
    """The search begins at the last replicate, and nothing is sorted before it."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path):
        pass
    connection = sqlite3.connect(path)
    try:
        values = {"key": 1, "numbers": "[0]", "seq": 1}
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {READS['ended_points'].text}", values)]
    finally:
        connection.close()
    assert "SEARCH runs USING PRIMARY KEY (experiment=? AND point=?)" in plan
    assert not [step for step in plan if "B-TREE" in step]


async def test_jobs_that_never_started_are_cancelled_by_their_keys(tmp_path: Path) -> None:
    """Only pending jobs are looked through, and not once for each of them."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path):
        pass
    connection = sqlite3.connect(path)
    try:
        statement = WRITES["cancel_unstarted"].for_rows(1, 4)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", (1, "cancelled", 0, 100))]
    finally:
        connection.close()
    assert [step for step in plan if "runs" in step] == ["SEARCH runs USING INDEX runs_due (experiment=?)"]
