"""Exports: jobs as flat rows with stable columns."""

import csv
import io
import json
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.cli import exits, export, formats

DETAILS = {"parameters": {"food": "a.food", "heat": "a.heat"}, "metrics": {"population": {}}}


def job(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "schema": "ems.result.v1",
        "experiment_id": "e",
        "simulation_id": f"e-p{number:06d}-r000-a1",
        "point": number,
        "replicate": 0,
        "attempt": 1,
        "run_id_suffix": None,
        "labels": {},
        "seed": 2**52 - 1,
        "params": {"food": 1},
        "state": "completed",
        "metrics": {"population": 1.5},
        "artifacts": {},
        "error": None,
        "config_sha": "c0ffee",
        "model_version": None,
        "submitted_at": "2026-01-01T00:00:00.000Z",
        "started_at": None,
        "finished_at": None,
        "job_revision": 1,
        "seq": 1,
        **changes,
    }


async def stream(*jobs: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    for one in jobs:
        yield one


JOBS = (
    job(0, labels={"site": "a, b"}, artifacts={"series": "file:///x.csv"}),
    job(1, state="failed", metrics=None, error={"kind": "simulation", "message": 'line\n"two"'}),
    job(2, params={"food": [1, 2], "heat": True}, metrics={"population": None, "extra": 2}),
    job(3, params={"food": {"sha256": "ab", "bytes": 5000}}, state="pending", metrics=None),
)


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def exported(tmp_path: Path, *jobs: dict[str, Any]) -> list[dict[str, str]]:
    file = tmp_path / "out.csv"
    assert await export.write(stream(*jobs), DETAILS, formats.Format.CSV, file) == len(jobs)
    assert listed(tmp_path) == ["out.csv"]
    return list(csv.DictReader(io.StringIO(file.read_text())))


async def test_csv_has_a_row_per_job_and_every_column(tmp_path: Path) -> None:
    """Null is an empty cell, and lists and mappings are JSON."""
    rows = await exported(tmp_path, *JOBS)
    assert [row["point"] for row in rows] == ["0", "1", "2", "3"]
    assert rows[0]["label.site"] == "a, b"
    assert rows[0]["artifact.series"] == "file:///x.csv"
    assert rows[0]["seed"] == str(2**52 - 1)
    assert (rows[1]["error_kind"], rows[1]["error_message"]) == ("simulation", 'line\n"two"')
    assert rows[1]["metric.population"] == ""
    assert (rows[2]["param.food"], rows[2]["param.heat"], rows[2]["metric.extra"]) == ("[1,2]", "true", "2")
    assert json.loads(rows[3]["param.food"]) == {"sha256": "ab", "bytes": 5000}


async def test_columns_follow_the_experiment_not_the_first_job(tmp_path: Path) -> None:
    """Parameters are in the plan's order, and tracked metrics have columns before any job has ended."""
    (row,) = await exported(tmp_path, job(0, state="pending", metrics=None))
    before = ["experiment_id", "simulation_id", "point", "replicate", "attempt", "run_id_suffix", "seed", "state"]
    varied = ["param.food", "param.heat", "metric.population"]
    after = "error_kind error_message submitted_at started_at finished_at model_version host slot step total"
    after += " excluded config_sha job_revision seq"
    assert list(row) == [*before, *varied, *after.split()]
    assert await exported(tmp_path) == []


async def test_jsonl_has_the_same_names_with_their_types(tmp_path: Path) -> None:
    """Numbers stay numbers, and null stays null."""
    file = tmp_path / "out.jsonl"
    await export.write(stream(*JOBS), DETAILS, formats.Format.JSONL, file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(rows) == len(JOBS)
    assert rows[2]["param.heat"] is True
    assert rows[2]["metric.population"] is None
    assert rows[1]["error_kind"] == "simulation"
    assert rows[0]["artifact.series"] == "file:///x.csv"


async def test_a_file_is_written_completely_or_not_at_all(tmp_path: Path) -> None:
    """A connection that breaks leaves no partial file, and an existing file is kept."""

    async def breaking() -> AsyncIterator[dict[str, Any]]:
        yield job(0)
        raise errors.BrokerUnavailable

    file = tmp_path / "out.jsonl"
    file.write_text("before")
    with pytest.raises(errors.BrokerUnavailable):
        await export.write(breaking(), DETAILS, formats.Format.JSONL, file)
    assert listed(tmp_path) == ["out.jsonl"]
    assert file.read_text() == "before"


async def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """The error names the path."""
    with pytest.raises(exits.Misused, match="nowhere"):
        await export.write(stream(job(0)), DETAILS, formats.Format.CSV, tmp_path / "nowhere" / "out.csv")


async def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    """Its reader gets the rows; a file in its place would leave the reader waiting."""
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.extend(pipe.read_text().splitlines()), daemon=True)
    reader.start()
    assert await export.write(stream(*JOBS), DETAILS, formats.Format.JSONL, pipe) == len(JOBS)
    assert pipe.is_fifo()
    assert listed(tmp_path) == ["pipe"]
    reader.join(timeout=10)
    assert [json.loads(line)["point"] for line in heard] == [0, 1, 2, 3]


@pytest.mark.parametrize("before", ["before", None])
async def test_a_link_stays_a_link(tmp_path: Path, before: str | None) -> None:
    """The file that the link leads to is created or replaced."""
    elsewhere, here = tmp_path / "elsewhere", tmp_path / "here"
    elsewhere.mkdir()
    here.mkdir()
    if before is not None:
        (elsewhere / "real.jsonl").write_text(before)
    (here / "link").symlink_to("../elsewhere/real.jsonl")
    await export.write(stream(*JOBS), DETAILS, formats.Format.JSONL, here / "link")
    assert (here / "link").is_symlink()
    assert len((elsewhere / "real.jsonl").read_text().splitlines()) == len(JOBS)
    assert (listed(here), listed(elsewhere)) == (["link"], ["real.jsonl"])


@pytest.mark.parametrize("name", ["", "loop"])
async def test_a_directory_or_a_link_to_itself_cannot_be_written(tmp_path: Path, name: str) -> None:
    """The error says why."""
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(exits.Misused, match="can't be written: "):
        await export.write(stream(*JOBS), DETAILS, formats.Format.JSONL, tmp_path / name)


FORMULAS = ("=cmd|' /C calc'!A0", "+1+1", "-1+1", "@SUM(A1)", "\t=1", "\r=1", "\n=1", "\uff1d1+1")


async def test_texts_that_would_be_formulas_can_be_escaped(tmp_path: Path) -> None:
    """Texts and column names are escaped, numbers never; by default a CSV has the texts unchanged."""
    hostile = [
        job(number, params={"food": text}, labels={"=n": text}, metrics={"population": -1.5}, error={"message": text})
        for number, text in enumerate(FORMULAS)
    ]
    file = tmp_path / "safe.csv"
    await export.write(stream(*hostile), DETAILS, formats.Format.CSV, file, safe=True)
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    for row, text in zip(rows, FORMULAS, strict=True):
        assert row["param.food"] == row["label.=n"] == row["error_message"] == f"'{text}"
        assert (row["metric.population"], row["experiment_id"]) == ("-1.5", "e")
    plain = tmp_path / "plain.csv"
    await export.write(stream(*hostile), DETAILS, formats.Format.CSV, plain)
    with plain.open(newline="") as opened:
        assert [row["param.food"] for row in csv.DictReader(opened)] == list(FORMULAS)
    with pytest.raises(exits.Misused, match="csv"):
        await export.write(stream(), DETAILS, formats.Format.JSONL, None, safe=True)
