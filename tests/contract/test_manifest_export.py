"""Exports say what the manifest holds: every column of every row, against SQL that the export does not use."""

import csv
import io
import json
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ems_worker.adapters import files
from ems_worker.adapters.manifest import Manifest
from ems_worker.cli import export, formats
from ems_worker.core.documents import documents, results
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Experiment, PointRecord
from tests.support import manifests

NOW_MS = manifests.NOW_MS
# What SQL has for a plain column, where it isn't the column of that name in v_jobs. A field that is added to results
# needs its line here, unless the view has it.
SQL = {
    "seq": "ended_seq",
    "error_message": "CASE error_kind WHEN 'metrics_missing' "
    "THEN 'metrics that the plan tracks did not come in time' ELSE error_message END",
}


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


@pytest.fixture
async def record(manifest: Manifest) -> Experiment:
    """Jobs in every state, with values of its own in each column."""
    record = await manifests.accepted(manifest, manifests.spec(points=4, replicates=3, metrics=("population", "heat")))
    points = [
        PointRecord(0, {"food": 25, "heat": 0.5}, "first", {"site": "reef", "who": "me"}),
        PointRecord(1, {"food": None, "genome": [1, 2.5, "x"]}, None, None),
        PointRecord(2, {"food": 2**70, "nested": {"a": [True, None]}}, "third", {"site": 'a, "b"\nc'}),
        PointRecord(3, {"food": "=1+1"}, None, {}),
    ]
    runs = [Run(p, r, 1, seed=1000 * p + 10 * r + 7) for p in range(4) for r in range(3)]
    await manifest.expand(record.key, points, [run for run in runs if run.point < 3 or run.replicate > 0], 4)

    def after(index: int, state: RunState, **changes: Any) -> tuple[int, Run | None, Run]:
        run = runs[index]
        times = {
            name: NOW_MS + 10_000 * index + step
            for step, name in enumerate(("submitted_ms", "started_ms", "finished_ms"))
        }
        if state is RunState.RUNNING:
            del times["finished_ms"]
        return record.key, run, replace(run, state=state, config_sha=f"{index:02x}" * 32, **(times | changes))

    lost = after(2, RunState.LOST, current=False, error_kind=ErrorKind.LOST, error_message="silence")
    retry = Run(0, 2, 2, runs[2].seed, RunState.COMPLETED, finished_ms=NOW_MS, metrics={}, ended_seq=3, job_revision=4)
    changes = [
        after(
            0,
            RunState.COMPLETED,
            metrics={"population": 1.5, "heat": None},
            artifacts={"csv": "file:///a,b"},
            model_version="fish-1",
            ended_seq=6,
            job_revision=2,
            host="n17",
            slot="gpu-1",
        ),
        after(
            1,
            RunState.FAILED,
            error_kind=ErrorKind.SIMULATION,
            error_message='no\n"fish"',
            retryable=False,
            ended_seq=1,
            job_revision=1,
            model_version="fish-2",
            excluded="bad machine",
        ),
        lost,
        (record.key, None, retry),
        after(3, RunState.FAILED, error_kind=ErrorKind.INFEASIBLE, ended_seq=2, job_revision=1),
        after(4, RunState.COMPLETED, waiting=Waiting.AWAITING, metrics={"other": -3.0, "heat": 2.25}),
        after(5, RunState.COMPLETED, waiting=Waiting.MISSING, ended_seq=4, job_revision=3, error_kind=None),
        after(6, RunState.LOST, error_kind=ErrorKind.LOST, error_message="silence", ended_seq=5, job_revision=1),
        after(7, RunState.CANCELLED, ended_seq=7, job_revision=1),
        after(8, RunState.RUNNING, host="n18", step=12.5, total=50.0),
    ]
    await manifest.save(changes, {record.key: 7})
    return record


def expected(manifest: Manifest) -> list[dict[str, Any]]:
    """The rows of the export as SQL gives them."""
    connection = sqlite3.connect(f"file:{manifest.path}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    plain = [column for field in results.FIELDS if field.prefix is None for column in field.columns]
    named = ", ".join(f"{SQL.get(column, column)} AS {column}" for column in plain)
    # SQLite has no type for these.
    flags = [field.name for field in results.FIELDS if "boolean" in field.schema["type"]]
    mappings = {field.prefix: field.name for field in results.FIELDS if field.prefix is not None}
    rows = connection.execute(f"SELECT {named}, {', '.join(mappings.values())} FROM v_jobs ORDER BY point, replicate")
    flat = []
    for row in rows:
        values = {column: row[column] for column in plain}
        values |= {flag: bool(row[flag]) for flag in flags if row[flag] is not None}
        for prefix, name in mappings.items():
            values |= {f"{prefix}.{key}": value for key, value in json.loads(row[name] or "{}").items()}
        flat.append(values)
    connection.close()
    return flat


async def exported(manifest: Manifest, record: Experiment, kind: formats.Format, file: Path) -> None:
    """What `ems export` writes of the documents that a worker sends."""

    async def sent() -> AsyncIterator[documents.Document]:
        async for row in manifest.export(record.key):
            yield json.loads(documents.encode(results.result("reef", row)))

    details = {"parameters": {"food": "a.food", "heat": "a.heat"}, "metrics": {"population": {}, "heat": {}}}
    await export.write(sent(), details, kind, file)


def cell(value: Any) -> str:
    """A value as a CSV has it."""
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def json_lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


async def test_every_column_of_the_json_lines_is_what_the_manifest_holds(
    manifest: Manifest, record: Experiment, tmp_path: Path
) -> None:
    """Every row of `ems export --format jsonl` has the same keys and values, with their types."""
    file = tmp_path / "out.jsonl"
    await exported(manifest, record, formats.Format.JSONL, file)
    assert json_lines(file) == expected(manifest)


async def test_every_column_of_the_csv_is_what_the_manifest_holds(
    manifest: Manifest, record: Experiment, tmp_path: Path
) -> None:
    """Every row of `ems export --format csv` has the same cells, empty where a job lacks a parameter or metric."""
    file = tmp_path / "out.csv"
    await exported(manifest, record, formats.Format.CSV, file)
    rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"), newline="")))
    wanted = expected(manifest)
    columns = set().union(*wanted)
    assert set(rows[0]) == columns
    assert rows == [{column: cell(row.get(column)) for column in columns} for row in wanted]


async def test_every_column_of_the_manifest_file_is_what_the_manifest_holds(
    manifest: Manifest, record: Experiment, tmp_path: Path
) -> None:
    """The file that the worker leaves beside its database has the same rows as an export."""
    file = await files.write_manifest(tmp_path, "reef", manifest.export(record.key))
    assert json_lines(file) == expected(manifest)


async def test_the_rows_tell_every_column_from_every_other(manifest: Manifest, record: Experiment) -> None:
    """Each column has values, and no two have the same: one in place of another would be seen."""
    rows = expected(manifest)
    columns = {column: tuple(cell(row.get(column)) for row in rows) for column in set().union(*rows)}
    assert [column for column, values in columns.items() if not any(values)] == []
    assert len(set(columns.values())) == len(columns)
