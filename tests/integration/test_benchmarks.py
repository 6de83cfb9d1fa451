"""The benchmarks work, so that the figures in docs/performance.md can be measured again."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from benchmarks import goals, page, results
from tests.support import commands, servers


def ran(module: str, *options: str, **env: str) -> str:
    """The output of a benchmark."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *options]
    environment = commands.environment(PYTHONWARNINGS="", **env)
    ended = subprocess.run(command, cwd=servers.ROOT, env=environment, capture_output=True, text=True, timeout=580)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def found(path: Path, output: str) -> dict[str, Any]:
    """What a benchmark wrote, once its form is checked."""
    written: dict[str, Any] = json.loads(path.read_text())
    assert {"date", "machine", "orchestrator", "seconds", "medians"} <= written.keys()
    assert list(written["goals"]) == [goal.number for goal in goals.GOALS]
    for number, judgement in written["goals"].items():
        assert number in output
        # A million jobs take minutes: a short benchmark has the value of the last one in full.
        assert judgement["value"] is not None or number == "4c", number
        assert isinstance(judgement["met"], bool)
    assert str(servers.ROOT) not in path.read_text()
    return written


def test_throughput_is_measured_beside_the_raw_calls() -> None:
    """A small benchmark measures the worker and the raw calls, each by unary calls and by batches."""
    printed = ran("throughput", "--jobs", "50", "--rounds", "1", BENCH_ORCHESTRATOR="python")
    assert [line.split("  ")[0] for line in printed.splitlines()] == [
        "median raw unary",
        "median unary",
        "median raw batches",
        "median batches",
    ]


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("orchestrator", ["", "python"])
def test_the_quick_benchmark_judges_every_goal(tmp_path: Path, orchestrator: str) -> None:
    """`make bench-quick` has a value for every goal, with either orchestrator."""
    path = tmp_path / "quick.json"
    output = ran("quick", "--tiny", "--output", str(path), BENCH_ORCHESTRATOR=orchestrator)
    written = found(path, output)
    assert written["goals"]["4c"] == results.read(results.FULL)["goals"]["4c"] | {"note": ANY}
    if orchestrator == "python":
        assert written["orchestrator"].startswith("Python")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_full_benchmark_measures_the_peers(tmp_path: Path) -> None:
    """`make bench` measures each peer, or says why not, and the page can be written from its results."""
    path = tmp_path / "full.json"
    written = found(path, ran("full", "--tiny", "--output", str(path)))
    measured = {"FastStream", "SqliteHuey", "Celery", "Dask"} - written["left_out"].keys()
    assert all("apt-get install" in reason or "be installed" in reason for reason in written["left_out"].values())
    for peer in measured:
        assert written["throughput"][peer]["jobs_per_second"]["median"] > 0
        assert written["comparisons"][peer]["value"] > 0
    text = page.text(page.PAGE.read_text(), written)
    assert all(f"| {peer} |" in text for peer in measured)


def test_the_page_shows_the_last_results() -> None:
    """docs/performance.md has the values of benchmarks/results/full.json."""
    written = page.PAGE.read_text()
    assert page.text(written, results.read(results.FULL)) == written


def test_a_goal_is_met_up_to_its_target() -> None:
    """A value equal to the target meets it, and a value that is missing does not."""
    least, most = (goal for goal in goals.GOALS if goal.number in ("1a", "1b"))
    judged = goals.judged({"1a": least.target, "1b": most.target + 1, "2a": None}, {"2a": "later"})
    assert [judged[number]["met"] for number in ("1a", "1b", "2a")] == [True, False, False]
    assert "later" in goals.table(judged)
