"""The rules that SQL shares with the core: queries and views decide every row as the core does."""

import re
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import astuple

from ems_worker.adapters.manifest import Manifest, metrics, migrate, queries, reads
from ems_worker.core.documents import results
from ems_worker.core.lifecycle import job, tally, transitions
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.lifecycle.transitions import TERMINAL, RunState
from ems_worker.core.records import Experiment, JobRow
from tests.support import manifests


def every_run() -> list[Run]:
    """Runs with every combination of the columns that the rules look at which the schema allows, each its own point."""
    combinations = [
        (state, kind, waiting, stop_reason, drains, excluded)
        for state, kind, waiting, stop_reason, drains, excluded in product(
            RunState, (None, *ErrorKind), (None, *Waiting), (None, *StopReason), (False, True), (None, "bad machine")
        )
        if not drains or state is not RunState.PENDING
        if kind is not ErrorKind.METRICS_MISSING
        if state is not RunState.COMPLETED or kind is None
        if waiting is None or state is RunState.COMPLETED
    ]
    return [
        Run(
            point=point,
            replicate=0,
            attempt=1,
            seed=1,
            state=state,
            finished_ms=5 if state in TERMINAL else None,
            error_kind=kind,
            waiting=waiting,
            stop_reason=stop_reason,
            drains=drains,
            excluded=excluded,
            metrics={"population": float(point)} if state is RunState.COMPLETED else None,
        )
        for point, (state, kind, waiting, stop_reason, drains, excluded) in enumerate(combinations)
    ]


RUNS = every_run()


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


@pytest.fixture
async def record(manifest: Manifest) -> Experiment:
    """An experiment that has every one of these runs."""
    accepted = await manifests.accepted(manifest, manifests.spec(points=len(RUNS), replicates=1))
    points, _ = manifests.jobs_of(range(len(RUNS)), 1)
    await manifest.expand(accepted.key, points, [], len(points))
    await manifest.save([(accepted.key, None, one) for one in RUNS], {})
    return accepted


def select(manifest: Manifest, text: str) -> list[dict[str, Any]]:
    """The rows of a statement, by another connection than the manifest's own."""
    connection = sqlite3.connect(f"file:{manifest.path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        return [dict(row) for row in connection.execute(text)]
    finally:
        connection.close()


async def test_the_manifest_has_every_combination(manifest: Manifest, record: Experiment) -> None:
    """Every state, kind of error, lack of metrics and reason to stop is among the runs that the rules are tried on."""
    assert [row.run async for row in manifest.export(record.key)] == RUNS
    assert {one.state for one in RUNS} == set(RunState)
    assert {tally.bucket(one) for one in RUNS} == set(Bucket)


async def test_queries_count_each_run_as_the_core_does(manifest: Manifest, record: Experiment) -> None:
    """A job's bucket is the same in pages of one state, tallies and points."""
    expected = {one.point: tally.bucket(one) for one in RUNS}
    paged = {
        row.run.point: bucket
        for bucket in Bucket
        for row in await manifest.jobs_page(record.key, (-1, -1, -1), 10_000, state=bucket)
    }
    assert paged == expected
    assert (await manifest.tally(record.key)).counts == Counter(expected.values())
    rows = await manifest.points(record.key, range(len(RUNS)))
    assert {row.point.point: row.counts for row in rows} == {point: {bucket: 1} for point, bucket in expected.items()}
    assert {row.point.point: row.excluded for row in rows} == {one.point: one.excluded for one in RUNS}
    assert {row.point.point for row in rows if row.ended_seq is None} == {one.point for one in RUNS if not one.settled}


async def test_a_tally_is_the_one_that_the_core_counts(manifest: Manifest, record: Experiment) -> None:
    """The counts of what sets jobs aside are the same, and so are the aggregates."""
    counted = Tally(len(RUNS), metrics={"population": Aggregate()}).after((None, one) for one in RUNS)
    read = await manifest.tally(record.key)
    assert read.by_bucket == counted.by_bucket
    for name in ("excluded", "called_off"):
        assert {key: jobs for key, jobs in getattr(counted, name).items() if jobs} == getattr(read, name)
        assert getattr(read, name)
    assert read.dropped == counted.dropped > 0
    assert astuple(read.metrics["population"]) == pytest.approx(astuple(counted.metrics["population"]))


async def test_views_name_each_job_as_the_core_does(manifest: Manifest, record: Experiment) -> None:
    """State and kind of error in v_jobs are those of a result; v_points counts by bucket, except starts as one."""
    jobs = {row["point"]: row for row in select(manifest, "SELECT * FROM v_jobs")}
    points = {row["point"]: row for row in select(manifest, "SELECT * FROM v_points")}
    records = await manifest.points_by_number(record.key, range(len(RUNS)))
    for one in RUNS:
        result = results.result("reef", JobRow(records[one.point], one))
        assert jobs[one.point]["state"] == result["state"]
        assert jobs[one.point]["error_kind"] == (result["error"] or {}).get("kind")
        bucket = tally.bucket(one)
        column = Bucket.SUBMITTED if bucket is Bucket.SUBMITTING else bucket
        counts = {name: points[one.point][name] for name in Bucket if name in points[one.point]}
        assert counts == {name: int(name is column) for name in counts}
        assert len(counts) == len(Bucket) - 1


async def test_views_aggregate_only_what_the_core_counts_as_completed(manifest: Manifest, record: Experiment) -> None:
    """A run that completed and still lacks metrics, or is excluded, adds to no mean."""
    assert record.spec.metrics == ("population",)
    completed = {one.point for one in RUNS if tally.bucket(one) is Bucket.COMPLETED}
    counted = {one.point for one in RUNS if metrics.aggregated(one)}
    assert {row["point"] for row in select(manifest, "SELECT point FROM v_metrics")} == completed > counted
    for view in ("v_tracked", "v_point_metrics"):
        assert {row["point"] for row in select(manifest, f"SELECT point FROM {view}")} == counted


async def test_a_retry_takes_the_jobs_that_the_core_takes(manifest: Manifest, record: Experiment) -> None:
    """The query that finds them and the rule that gives them another attempt agree on every run."""
    taken = [one.current for one in await manifest.to_retry(record.key, (-1, -1), 10_000)]
    assert taken == [one for one in RUNS if job.retried(one)]
    assert taken == [one for one in RUNS if job.again(job.Job((one,)), 9) is not None]


async def test_open_runs_are_those_that_the_orchestrator_may_have(manifest: Manifest, record: Experiment) -> None:
    """The query that a start of the worker begins with takes the states that fill the run window."""
    opened = [one.current for one, _ in await manifest.open_jobs(record.key)]
    assert opened == [one for one in RUNS if one.state in transitions.OPEN]


async def test_open_runs_are_found_by_their_index(manifest: Manifest) -> None:
    """The rule is written as the condition of the index, or every start of the worker would read all runs."""
    plan = select(manifest, f"EXPLAIN QUERY PLAN {queries.READS['unfinished'].text}")
    assert "SCAN runs USING INDEX runs_open" in [row["detail"] for row in plan]


def test_a_row_has_the_columns_of_its_query(tmp_path: Path) -> None:
    """Rows are read by name, and each name is that of its column; other queries give a single value."""
    connection = sqlite3.connect(tmp_path / "manifest.db")
    connection.executescript("\n".join(migrate.steps()))
    names = {name for query in queries.READS.values() for name in re.findall(r":(\w+)", query.text)}
    parameters = dict.fromkeys(names, 1)
    columns = {
        name: tuple(column[0] for column in connection.execute(query.text, parameters).description)
        for name, query in queries.READS.items()
    }
    connection.close()
    assert {name: names for name, names in columns.items() if name in queries.COLUMNS} == queries.COLUMNS
    assert {name for name, names in columns.items() if len(names) == 1} >= columns.keys() - queries.COLUMNS.keys()


def test_every_column_of_a_run_is_read(tmp_path: Path) -> None:
    """A column that is added to the table is one that the core gets."""
    connection = sqlite3.connect(tmp_path / "manifest.db")
    connection.executescript("\n".join(migrate.steps()))
    table = [row[1] for row in connection.execute("PRAGMA table_info(runs)")]
    connection.close()
    assert table == list(reads.RunRow._fields)
