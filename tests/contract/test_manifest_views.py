"""The views are as docs/manifest.md describes them, and any SQLite can read them while the worker writes."""

import asyncio
import json
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ems_worker.adapters.manifest import Manifest
from ems_worker.core import ids
from ems_worker.core.documents import documents, results
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, PointRecord
from ems_worker.service.base.ports import RunChange
from tests.support import manifests

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "manifest.md").read_text("utf-8")
METRICS = ("population", "life span")


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


@pytest.fixture
async def reef(manifest: Manifest) -> Experiment:
    """Six jobs: one retried and completed, three completed, one infeasible, one pending; and a second experiment."""
    record = await manifests.running(manifest, manifests.spec(metrics=METRICS, group="study", tags=("a",)))
    runs = [one.current for one, _ in await manifest.due(record.key, 0, 100)]
    first, infeasible = runs[0], runs[4]
    lost = replace(first, state=RunState.LOST, current=False, finished_ms=5, error_kind=ErrorKind.LOST)
    retry = Run(first.point, first.replicate, 2, first.seed, due_ms=manifests.NOW_MS)
    won = manifests.completed(manifests.claimed(retry), 1, **{"population": 7.25, "life span": None, "other": 3.0})
    ended = [manifests.completed(run, index + 2, population=0.1 * index) for index, run in enumerate(runs[1:4])]
    failed = replace(
        infeasible,
        state=RunState.FAILED,
        finished_ms=5,
        error_kind=ErrorKind.INFEASIBLE,
        metrics={"population": 99.0},
        ended_seq=5,
        job_revision=1,
    )
    changes: list[RunChange] = [(record.key, first, lost), (record.key, None, won), (record.key, infeasible, failed)]
    changes += [(record.key, old, new) for old, new in zip(runs[1:4], ended, strict=True)]
    await manifest.save(changes, {record.key: 5})
    other = await manifests.running(manifest, manifests.spec("reef-2"), seq=2)
    await manifests.complete_all(manifest, other)
    return record


def _ask(manifest: Manifest, text: str) -> list[dict[str, Any]]:
    """Reads as another process would: read-only, while the worker has the manifest open."""
    connection = sqlite3.connect(f"file:{manifest.path}?mode=ro", uri=True)
    try:
        cursor = connection.execute(text)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor]
    finally:
        connection.close()


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def test_every_view_has_the_columns_of_its_page(manifest: Manifest) -> None:
    """The page lists every view with its columns in their order."""
    told = {}
    for part in PAGE.split("\n### ")[1:]:
        name = part[1 : part.index("`", 1)]
        told[name] = re.findall(r"^\| `(\w+)` \|", part.split("\n## ")[0], re.MULTILINE)
    views = [row["name"] for row in _ask(manifest, "SELECT name FROM sqlite_schema WHERE type = 'view'")]
    assert told == {
        name: [row["name"] for row in _ask(manifest, f"SELECT name FROM pragma_table_info('{name}')")] for name in views
    }


@pytest.mark.parametrize("query", _blocks("sql"))
async def test_the_queries_of_the_page_have_answers(manifest: Manifest, reef: Experiment, query: str) -> None:
    """Each query of the page returns rows as it stands there."""
    assert reef.spec.experiment_id == "reef"
    assert _ask(manifest, query)


async def test_the_programs_of_the_page_use_existing_columns(manifest: Manifest, reef: Experiment) -> None:
    """The query and columns of the pandas example exist, and so do the export columns of the DuckDB example."""
    (pandas,) = _blocks("python")
    compile(pandas, "docs/manifest.md", "exec")
    (query,) = re.findall(r'read_sql_query\("(.*?)"', pandas)
    job = next(row for row in _ask(manifest, query) if row["state"] == "completed")
    flat = {f"{column}.{name}" for column in ("params", "metrics") for name in json.loads(job[column])}
    assert set(re.findall(r'"((?:params|metrics)\.\w+)"', pandas)) <= flat
    assert job["finished_at"]

    (duckdb,) = _blocks("duckdb")
    lines = [results.line(results.result("reef", row)) async for row in manifest.export(reef.key)]
    named = set(re.findall(r'"([\w.]+)"', duckdb)) | {"state"}
    assert named <= set().union(*lines)


async def test_a_job_in_the_view_is_its_current_run(manifest: Manifest, reef: Experiment) -> None:
    """Each field is equal to that of the worker's own export, under the same simulation id."""
    rows = _ask(manifest, "SELECT * FROM v_jobs WHERE experiment_id = 'reef' ORDER BY point, replicate")
    exported = [row async for row in manifest.export(reef.key)]
    assert len(rows) == len(exported) == 6
    for row, job in zip(rows, exported, strict=True):
        run = job.run
        assert row["simulation_id"] == ids.simulation_id("reef", run.point, run.replicate, run.attempt)
        assert (row["state"], row["attempt"], row["seed"]) == (run.state.value, run.attempt, run.seed)
        assert json.loads(row["params"]) == job.point.params
        assert (None if row["metrics"] is None else json.loads(row["metrics"])) == run.metrics
        assert (None if row["artifacts"] is None else json.loads(row["artifacts"])) == run.artifacts
        assert row["submitted_at"] == documents.timestamp(run.submitted_ms)
        assert row["finished_at"] == documents.timestamp(run.finished_ms)
        assert (row["config_sha"], row["model_version"]) == (run.config_sha, run.model_version)
        assert (row["ended_seq"], row["job_revision"]) == (run.ended_seq, run.job_revision)
    assert (rows[0]["attempts"], rows[0]["duration_seconds"], rows[0]["group"]) == (2, 2.0, "study")
    runs = _ask(
        manifest, "SELECT attempt, current, state, due_at FROM v_runs WHERE experiment_id = 'reef' AND point = 0"
    )
    assert [tuple(row.values()) for row in runs] == [
        (1, 0, "lost", None),
        (2, 1, "completed", documents.timestamp(manifests.NOW_MS)),
        (1, 1, "completed", None),
    ]


async def test_ids_of_large_numbers_are_those_of_the_core(manifest: Manifest) -> None:
    """Points over a million and replicates over a thousand widen the id; times of the year 9999 are formatted."""
    record = await manifests.accepted(manifest, manifests.spec(points=2_000_000, replicates=1))
    await manifest.expand(record.key, [PointRecord(0, {})], [], 1)
    last = PointRecord(1_234_567, {})
    await manifest.expand(record.key, [last], [Run(last.point, 12_345, 10, 1, due_ms=253_402_300_799_999)], 2)
    (row,) = _ask(manifest, "SELECT simulation_id, due_at FROM v_runs")
    assert row["simulation_id"] == ids.simulation_id("reef", last.point, 12_345, 10)
    assert row["due_at"] == "9999-12-31T23:59:59.999Z" == documents.timestamp(253_402_300_799_999)


async def test_points_in_the_views_are_counted_and_aggregated_as_by_the_core(
    manifest: Manifest, reef: Experiment
) -> None:
    """Only completed jobs of the experiment count, missing values separately, and means agree to twelve digits."""
    rows = await manifest.points(reef.key, [0, 1, 2])
    seen = _ask(manifest, "SELECT * FROM v_points WHERE experiment_id = 'reef' ORDER BY point")
    for row, view in zip(rows, seen, strict=True):
        names = ("pending", "running", "completed", "failed", "infeasible", "cancelled", "lost")
        assert {name: view[name] for name in names if view[name]} == {k.value: v for k, v in row.counts.items()}
        assert (view["point"], view["replicates"], json.loads(view["params"])) == (row.point.point, 2, row.point.params)
    measured = _ask(manifest, "SELECT * FROM v_point_metrics WHERE experiment_id = 'reef'")
    assert {(one["point"], one["metric"]) for one in measured} == {(p, name) for p in (0, 1) for name in METRICS}
    for one in measured:
        core = rows[one["point"]].metrics[one["metric"]]
        assert (one["n"], one["missing"]) == (core.n, core.missing)
        assert one["mean"] == (pytest.approx(core.mean, rel=1e-12) if core.n else None)
        assert one["std"] == (None if core.std is None else pytest.approx(core.std, rel=1e-12))
        assert (one["min"], one["max"]) == ((core.min, core.max) if core.n else (None, None))


@pytest.mark.parametrize("scale", [1e-150, 1e-9, 1.0, 1e9, 1e150])
async def test_the_standard_deviation_keeps_its_digits(manifest: Manifest, scale: float) -> None:
    """It is exact for numbers that are small, large, equal, or close together and far from zero."""
    record = await manifests.running(manifest, manifests.spec(points=3, replicates=3))
    values = [1.0, 2.0, 4.0, 7.0, 7.0, 7.0, 1e6 + 1, 1e6 + 2, 1e6 + 3]
    runs = [one.current for one, _ in await manifest.due(record.key, 0, 100)]
    await manifest.save(
        [
            (record.key, run, manifests.completed(run, index + 1, population=value * scale))
            for index, (run, value) in enumerate(zip(runs, values, strict=True))
        ],
        {record.key: 9},
    )
    found = [row["std"] for row in _ask(manifest, "SELECT std FROM v_point_metrics ORDER BY point")]
    assert found == pytest.approx([(7 / 3) ** 0.5 * scale, 0.0, scale], rel=1e-9)


async def test_long_views_have_a_row_per_value(manifest: Manifest, reef: Experiment) -> None:
    """Missing tracked metrics are null, all metrics are as reported, and jobs that didn't complete have no rows."""
    tracked = _ask(manifest, "SELECT metric, value FROM v_tracked WHERE experiment_id = 'reef' AND point = 0")
    assert [tuple(row.values()) for row in tracked] == [
        ("population", 7.25),
        ("life span", None),
        ("population", 0.0),
        ("life span", None),
    ]
    every = _ask(manifest, "SELECT metric, value FROM v_metrics WHERE simulation_id = 'reef-p000000-r000-a2'")
    assert {row["metric"]: row["value"] for row in every} == {"population": 7.25, "life span": None, "other": 3.0}
    (row,) = _ask(manifest, "SELECT * FROM v_experiments WHERE experiment_id = 'reef'")
    assert (row["state"], json.loads(row["metrics_to_track"])) == ("running", list(METRICS))
    assert row["created_at"] == documents.timestamp(manifests.NOW_MS)


async def test_readers_see_whole_commits_while_the_worker_writes(manifest: Manifest) -> None:
    """Each save ends both jobs of a point, and no reader ever sees one end without the other."""
    record = await manifests.running(manifest, manifests.spec(points=100, replicates=2))
    due = await manifest.due(record.key, 0, 1000)
    done = asyncio.Event()

    async def write() -> None:
        for point in range(100):
            changes = [
                (record.key, one.current, manifests.completed(one.current, 2 * point + index + 1, population=1.0))
                for index, (one, _) in enumerate(due[2 * point : 2 * point + 2])
            ]
            await manifest.save(changes, {record.key: 2 * point + 2})
        await manifests.moved(manifest, record, ExperimentState.COMPLETED, at_ms=9)
        done.set()

    task = asyncio.create_task(write())
    seen = set()
    while not done.is_set():
        counts = await asyncio.to_thread(_ask, manifest, "SELECT completed FROM v_points")
        seen |= {row["completed"] for row in counts}
    await task
    assert seen <= {0, 2}
    assert {row["completed"] for row in _ask(manifest, "SELECT completed FROM v_points")} == {2}


async def test_reading_needs_no_worker(manifest: Manifest, reef: Experiment) -> None:
    """The views of a closed manifest give the same rows."""
    query = "SELECT * FROM v_jobs ORDER BY experiment_id, point, replicate"
    before = _ask(manifest, query)
    await manifest.close()
    assert _ask(manifest, query) == before
    assert len(before) == 2 * reef.spec.jobs


async def test_a_reader_cannot_write(manifest: Manifest) -> None:
    """Opened as the page describes, the file can't be changed."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        _ask(manifest, "DELETE FROM remembered")
