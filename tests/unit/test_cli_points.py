"""`ems points`: the points of a plan, and of an experiment, before and after it runs."""

import asyncio
import csv
import io
import json
import textwrap
from collections.abc import AsyncGenerator, Callable
from itertools import islice
from pathlib import Path
from typing import Any, Self

import pytest
import typer

from ems_worker import client, errors
from ems_worker.cli import exits, listing, plans, points, tables
from ems_worker.cli.formats import PointFormat
from ems_worker.core import seeds
from ems_worker.core.points import space
from tests.support import known, steps

PLAN = """\
experiment_id: reef
base_config: {layer: {food: 1, heat: 20.5}, kind: cod}
labels: {site: north}
parameter_space:
  layer.food: [5, 10]
  layer.heat: {values: [18.5, 100.0], as: heat}
  kind: {values: [cod, pike], when: food > 5}
num_replicates_per_run: 2
""".replace("food > 5", "layer.food > 5")
COMMON = [seeds.seed("common", 0, 0, replicate) for replicate in range(2)]


@pytest.fixture
def listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[exits.Exit, str, str]]:
    """Runs `ems points` for a plan with this text, or for an experiment's id."""

    def run(target: str, **options: Any) -> tuple[exits.Exit, str, str]:
        if "\n" in target:
            (tmp_path / "plan.yaml").write_text(target)
            target = str(tmp_path / "plan.yaml")
        with pytest.raises(typer.Exit) as caught:
            points.points(target, **options)
        printed = capsys.readouterr()
        return exits.Exit(caught.value.exit_code), printed.out, printed.err

    return run


Listed = Callable[..., tuple[exits.Exit, str, str]]


def test_a_table_has_a_row_for_each_point(listed: Listed) -> None:
    """Columns are aligned; the seed and the id are those of the first replicate; a value that is left out is a dash."""
    code, out, err = listed(PLAN)
    assert (code, err) == (exits.Exit.OK, "")
    assert out.splitlines() == [
        "point  food   heat  kind       first seed  first simulation_id",
        "    0     5   18.5  -     951979130700066  reef-p000000-r000-a1",
        "    1     5  100.0  -     951979130700066  reef-p000001-r000-a1",
        "    2    10   18.5  cod   951979130700066  reef-p000002-r000-a1",
        "    3    10   18.5  pike  951979130700066  reef-p000003-r000-a1",
        "    4    10  100.0  cod   951979130700066  reef-p000004-r000-a1",
        "    5    10  100.0  pike  951979130700066  reef-p000005-r000-a1",
    ]


def test_a_table_of_jobs_has_all_seeds_and_ids(listed: Listed) -> None:
    """Each replicate of each point has a row."""
    _, out, _ = listed(PLAN, jobs=True)
    header, *rows = [line.split() for line in out.splitlines()]
    assert header == ["point", "replicate", "food", "heat", "kind", "seed", "simulation_id"]
    assert [(row[0], row[1], row[-2], row[-1]) for row in rows] == [
        (str(point), str(replicate), str(COMMON[replicate]), f"reef-p{point:06d}-r{replicate:03d}-a1")
        for point in range(6)
        for replicate in range(2)
    ]


def test_json_lines_have_all_seeds_and_ids_of_a_point(listed: Listed) -> None:
    """Parameters that a point leaves out are absent, and labels are those of the plan and of the point."""
    first, *_, last = map(json.loads, listed(PLAN, kind=PointFormat.JSONL)[1].splitlines())
    assert first == {
        "experiment_id": "reef",
        "point": 0,
        "run_id_suffix": None,
        "seeds": COMMON,
        "simulation_ids": ["reef-p000000-r000-a1", "reef-p000000-r001-a1"],
        "param.layer.food": 5,
        "param.heat": 18.5,
        "label.site": "north",
    }
    assert (last["point"], last["param.kind"]) == (5, "pike")


def test_csv_has_a_column_for_each_parameter_and_label(listed: Listed) -> None:
    """The columns are the same in every row, also those that only some entries of `runs` have."""
    runs = "runs: [{run_id_suffix: a, labels: {wave: x}}, {run_id_suffix: b, params_override: {kind: '=1+1'}}]\n"
    plan = f"experiment_id: reef\nbase_config: {{layer: {{food: 1}}, kind: cod}}\n{runs}"
    _, out, _ = listed(plan, kind=PointFormat.CSV, jobs=True)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert list(rows[0]) == [
        "experiment_id", "simulation_id", "point", "replicate", "run_id_suffix", "seed", "param.kind", "label.wave",
    ]  # fmt: skip
    assert [(row["run_id_suffix"], row["param.kind"], row["label.wave"]) for row in rows] == [
        ("a", "", "x"),
        ("b", "=1+1", ""),
    ]
    assert ",'=1+1," in listed(plan, kind=PointFormat.CSV, jobs=True, safe_for_spreadsheets=True)[1]


def test_a_plan_without_an_id_has_no_simulation_ids_yet(listed: Listed) -> None:
    """Their column is left out of the table, and null in rows; a message says so."""
    plan = PLAN.replace("experiment_id:", "experiment_name:")
    code, out, err = listed(plan, jobs=True)
    assert (code, out.splitlines()[0].split()[-1]) == (exits.Exit.OK, "seed")
    assert err == "the plan has no experiment_id: its simulation ids are known when it is accepted\n"
    of_points = json.loads(listed(plan, kind=PointFormat.JSONL)[1].splitlines()[0])
    of_jobs = json.loads(listed(plan, kind=PointFormat.JSONL, jobs=True)[1].splitlines()[0])
    assert (of_points["simulation_ids"], of_jobs["simulation_id"], of_jobs["experiment_id"]) == (None, None, None)


def test_an_invalid_plan_has_no_points(listed: Listed) -> None:
    """Its problems are shown as by `ems validate`."""
    code, out, err = listed(PLAN.replace("layer.food:", "layer.fod:"))
    assert (code, out, "did you mean layer.food?" in err) == (exits.Exit.INVALID_PLAN, "", True)


def test_rows_can_be_written_to_a_file(listed: Listed, tmp_path: Path) -> None:
    """A message counts them. A table can't."""
    file = tmp_path / "out.jsonl"
    assert listed(PLAN, kind=PointFormat.JSONL, output=file) == (exits.Exit.OK, "", f"6 points in {file}\n")
    assert len(file.read_text().splitlines()) == 6
    other = tmp_path / "out.csv"
    assert listed(PLAN, kind=PointFormat.CSV, jobs=True, output=other)[2] == f"12 jobs in {other}\n"
    assert listed(PLAN, output=file)[0] is exits.Exit.USAGE
    assert listed(PLAN, safe_for_spreadsheets=True)[0] is exits.Exit.USAGE


def test_points_are_made_only_when_they_are_read() -> None:
    """The first rows of an experiment of two trillion jobs need no others."""
    axes = "{a: {range: {start: 1, stop: 1500, num: 1500}}, b: {range: {start: 1, stop: 1400, num: 1400}}}"
    text = f"experiment_id: x\nbase_config: {{a: 1, b: 2}}\nparameter_space: {axes}\nnum_replicates_per_run: 1000000\n"
    parsed = plans.check(plans.PlanFile("x", text.encode(), Path())).plan
    table = listing.Table(["a", "b"], parsed.replicates, {})
    for point in islice(space.points(parsed), 3):
        entry = listing.of_point(parsed, point)
        table.show(entry)
        assert next(entry.jobs).replicate == 1
    assert [row["replicate"] for row in islice(listing.rows(entry, each_job=True), 2)] == [2, 3]


def test_the_page_shows_what_the_command_prints(listed: Listed) -> None:
    """Its plan on its base configuration, as points and as jobs."""
    page = (Path(__file__).parents[2] / "docs/plan-language.md").read_text()
    base = page.partition("```yaml base\n")[2].partition("```")[0]
    plan, _, console = page.partition("experiment_id: sweep\n")[2].partition("```console\n")
    text = f"experiment_id: sweep\n{plan.partition('```')[0]}base_config:\n{textwrap.indent(base, '  ')}"
    of_points, of_jobs = listed(text)[1], listed(text, jobs=True)[1]
    head = "".join(of_jobs.splitlines(keepends=True)[:3])
    shown = console.partition("```")[0]
    assert shown == f"$ ems points sweep.yaml\n{of_points}$ ems points sweep.yaml --jobs | head -n 3\n{head}"


def job(point: int, replicate: int, **changes: Any) -> dict[str, Any]:
    run = f"reef-p{point:06d}-r{replicate:03d}-a1"
    fixed = {"experiment_id": "reef", "simulation_id": run, "point": point, "replicate": replicate, "seed": 7}
    return {**fixed, "run_id_suffix": None, "params": {"food": point}, "labels": {}, "state": "pending", **changes}


JOBS = (
    job(0, 0),
    job(0, 1, seed=8, simulation_id="reef-p000000-r001-a3"),
    job(1, 0, labels={"wave": "x"}, params={"food": {"sha256": "ab", "bytes": 5000}}),
    job(1, 1, seed=8, labels={"wave": "x"}),
)
DETAILS = {"parameters": {"food": "layer.food"}, "replicates": 2, "points": 3}


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that knows the experiment `reef`, of which one point is still to be expanded."""

    class Fake:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            """Connects to nothing."""

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *exception: object) -> None:
            """Has nothing to close."""

        def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
            return known.experiments([known.status("reef")], **which)

        async def get(self, experiment_id: str) -> dict[str, Any]:
            if experiment_id != "reef":
                raise errors.NotFound(f"there is no experiment {experiment_id}")
            return DETAILS

        async def jobs(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
            for one in JOBS:
                yield one

    monkeypatch.setattr(client, "EmsClient", Fake)


@pytest.mark.usefixtures("served")
def test_the_points_of_an_experiment_have_the_runs_that_count(listed: Listed) -> None:
    """A job that was retried has the id of its last attempt; a long value is described; labels come late."""
    code, out, err = listed("reef", kind=PointFormat.CSV)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert (code, err) == (exits.Exit.OK, "2 of 3 points: the others have not been expanded\n")
    assert list(rows[0])[-2:] == ["param.food", "label.wave"]
    assert json.loads(rows[0]["simulation_ids"]) == ["reef-p000000-r000-a1", "reef-p000000-r001-a3"]
    assert [json.loads(row["seeds"]) for row in rows] == [[7, 8], [7, 8]]
    assert [row["label.wave"] for row in rows] == ["", "x"]
    _, out, _ = listed("reef")
    assert out.splitlines()[1:] == [
        "    0  0                  7  reef-p000000-r000-a1",
        "    1  <5.0 kB>           7  reef-p000001-r000-a1",
    ]
    assert len(listed("reef", jobs=True, kind=PointFormat.JSONL)[1].splitlines()) == len(JOBS)


@pytest.mark.usefixtures("served")
def test_a_name_is_an_id_whatever_files_there_are(
    listed: Listed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the working directory doesn't change what a command means; if it was meant, a message says how."""
    monkeypatch.chdir(tmp_path)
    for name in ("reef", "plan"):
        (tmp_path / name).write_text(PLAN)
    assert len(listed("reef")[1].splitlines()) == 3
    assert listed("plan") == (
        exits.Exit.FAILED,
        "",
        "plan is taken for the id of an experiment; for the file, write ./plan\nerror: there is no experiment plan\n",
    )
    assert len(listed("./plan")[1].splitlines()) == 7
    assert "taken for" not in listed("nothing")[2]


def test_an_experiment_without_points_is_empty() -> None:
    """It was accepted a moment ago."""

    async def none() -> AsyncGenerator[dict[str, Any], None]:
        for one in list(JOBS)[:0]:
            yield one

    async def count() -> int:
        return len([entry async for entry in listing.of_jobs(none())])

    assert asyncio.run(count()) == 0


def test_a_long_table_is_printed_in_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns only get wider, and a column that appears later brings the header again."""
    table = tables.Growing(["n", "word", "note"])
    for number in range(1000):
        table.add([str(number), "a", ""])
    first = capsys.readouterr().out.splitlines()
    assert (first[0], first[1], first[-1]) == ("  n  word", "  0  a", "999  a")
    table.add(["1000", "longer", "b"])
    table.add(["...", "\x1b[31m", "魚"])
    table.add(["1001", "魚魚", "c"])
    table.flush()
    assert capsys.readouterr().out.splitlines() == [
        "",
        "   n  word    note",
        "1000  longer  b",
        " ...  \ufffd[31m   魚",
        "1001  魚魚    c",
    ]


def test_an_empty_table_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no header without rows."""
    tables.Growing(["n"]).flush()
    assert capsys.readouterr().out == ""


def test_a_table_of_many_columns_is_printed_in_smaller_blocks(capsys: pytest.CaptureFixture[str]) -> None:
    """No more than 20,000 cells are in memory, or one row."""
    for columns, rows in ((10_000, 2), (50_000, 1)):
        table = tables.Growing(["a"] * columns)
        for number in range(rows):
            assert capsys.readouterr().out == "", number
            table.add(["1"] * columns)
        assert len(capsys.readouterr().out.splitlines()) == rows + 1


def test_ten_times_the_paths_are_shortened_in_ten_times_the_steps() -> None:
    """A plan may have thousands of parameters."""
    few, many = ([f"layer.agents.{number}.speed" for number in range(size)] for size in (100, 1000))
    assert tables.short(many) == [f"{number}.speed" for number in range(1000)]
    assert steps.of(lambda: tables.short(many)) < 11 * steps.of(lambda: tables.short(few))
