"""The fish model responds to heat and food as a reef does, and gives the same run for the same seed."""

import asyncio
import copy
import csv
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker.local import simulator
from tests.support import wait

ROOT = Path(__file__).resolve().parents[2]
SEEDS = range(3)


def document(**changes: Any) -> dict[str, Any]:
    """The base configuration of the demo, for a shorter run and with some values changed by name."""
    base: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "reef_base.yaml").read_text())
    layer = base["simulation_layer"]
    layer["run_control"]["max_ticks"] = 200
    for name, value in changes.items():
        [section] = [section for section in layer.values() if name in section]
        section[name] = value
    return base


def mean_population(**changes: Any) -> float:
    """The mean population at the end of a run, over a few seeds."""
    config = simulator.parse(document(**changes))
    return statistics.mean(simulator.simulate(config, seed).population for seed in SEEDS)


def test_the_population_falls_with_heat() -> None:
    """Every step beyond the optimal temperature leaves fewer fish, down to extinction."""
    populations = [mean_population(water_temperature=degrees) for degrees in (26, 28, 30, 34)]
    assert populations == sorted(populations, reverse=True)
    assert len(set(populations)) == 4
    assert populations[-1] == 0


def test_the_population_rises_with_food() -> None:
    """The more food the reef carries, the more fish survive."""
    populations = [mean_population(initial_food_count=count) for count in (25, 50, 100)]
    assert populations == sorted(populations)
    assert len(set(populations)) == 3


def test_extinction_ends_the_run() -> None:
    """Without food all fish die, and the run ends with the tick in which the last fish dies."""
    result = simulator.simulate(simulator.parse(document(initial_food_count=0)), seed=1)
    assert result.population == 0
    assert result.food_eaten == 0
    assert result.extinction_tick == len(result.series) < 200


@given(seed=st.integers(min_value=0, max_value=2**64 - 1))
@settings(max_examples=settings().max_examples // 10)  # each simulates twice
def test_the_same_seed_gives_the_same_run(seed: int) -> None:
    """The same configuration and seed give exactly the same time series."""
    config = simulator.parse(document(max_ticks=30))
    assert simulator.simulate(config, seed) == simulator.simulate(config, seed)


def test_different_seeds_give_different_runs() -> None:
    """Runs of the same configuration with different seeds differ."""
    config = simulator.parse(document(max_ticks=30))
    assert simulator.simulate(config, 1) != simulator.simulate(config, 2)


def test_fish_and_food_are_accounted_for() -> None:
    """The population changes only by births and deaths, and the food stays between zero and the initial amount."""
    config = simulator.parse(document())
    series = simulator.simulate(config, seed=5).series
    population = config.initial_fish_count
    for row in series:
        population += row.births - row.deaths
        assert row.population == population
        assert 0 <= row.food <= config.initial_food_count
        assert row.mean_energy > 0 or row.population == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"world_width": 0}, "simulation_layer.world_definition.world_width is 0, not between 1 and 10000"),
        ({"initial_fish_count": 2.5}, "initial_fish_count is 2.5, not a whole number"),
        ({"water_temperature": "warm"}, "water_temperature is not a number: 'warm'"),
        ({"max_ticks": None}, "simulation_layer.run_control.max_ticks is missing"),
        ({"default_agent_energy": True}, "default_agent_energy is not a number: True"),
        ({"swim_speed": float("nan")}, "swim_speed is nan, not between"),
    ],
)
def test_an_invalid_value_is_named(changes: dict[str, Any], message: str) -> None:
    """A configuration that describes no meaningful run is refused with the path and the problem of the value."""
    with pytest.raises(simulator.ConfigError, match=message):
        simulator.parse(document(**changes))


@pytest.mark.parametrize("config", [None, {"lr": 0.1}, {"simulation_layer": 1}, {"simulation_layer": {"lr": 1}}])
def test_a_configuration_of_another_program_is_told_so(config: Any) -> None:
    """The last line, which lists of failures show, names the simulator and how to run another one."""
    with pytest.raises(simulator.ConfigError) as refused:
        simulator.parse(config)
    last = str(refused.value).splitlines()[-1]
    assert "built-in fish simulator" in last
    assert "--simulator" in last
    assert len(last) < 160


def test_all_problems_are_reported_at_once() -> None:
    """Two invalid values give one error that names both."""
    with pytest.raises(simulator.ConfigError, match=r"world_width.*; .*max_ticks"):
        simulator.parse(document(world_width=0, max_ticks=0))


def test_values_with_a_default_may_be_omitted() -> None:
    """A configuration without a section on the environment is equivalent to one with the default values."""
    complete = document()
    reduced = copy.deepcopy(complete)
    del reduced["simulation_layer"]["environment"]
    assert simulator.parse(reduced) == simulator.parse(complete)


def run_program(directory: Path, config: dict[str, Any], **environment: str) -> "subprocess.CompletedProcess[str]":
    """Runs the simulator as the orchestrator does."""
    path = directory / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    given_environment = {
        **os.environ,
        "SIMULATION_ID": "exp-p000001-r000-a1",
        "SIMULATION_CONFIG": str(path),
        "SIMULATION_SEED": "7",
        "SIMULATION_OUTPUT_DIR": str(directory),
        **environment,
    }
    command = [sys.executable, "-P", simulator.__file__]
    return subprocess.run(command, env=given_environment, capture_output=True, text=True, timeout=30)


def test_the_program_follows_the_protocol(tmp_path: Path) -> None:
    """The last line on stdout has the metrics, and the time series is a file named after the run."""
    ended = run_program(tmp_path, document())
    assert ended.returncode == 0, ended.stderr
    result = json.loads(ended.stdout.splitlines()[-1])
    expected = simulator.simulate(simulator.parse(document()), seed=7)
    assert result["metrics"] == {
        "population": expected.population,
        "mean_lifespan": expected.mean_lifespan,
        "food_eaten": expected.food_eaten,
        "extinction_tick": None,
    }
    assert result["artifacts"] == {"time_series": "exp-p000001-r000-a1.csv"}
    with (tmp_path / "exp-p000001-r000-a1.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["population"]) for row in rows] == [row.population for row in expected.series]


def test_the_program_reports_why_it_cannot_run(tmp_path: Path) -> None:
    """An invalid configuration is infeasible (exit code 65) with one line on stderr; an invalid seed is exit code 2."""
    bad = run_program(tmp_path, document(world_width=-1))
    assert bad.returncode == 65
    assert bad.stderr == (
        "configuration: simulation_layer.world_definition.world_width is -1, not between 1 and 10000\n"
    )
    unseeded = run_program(tmp_path, document(), SIMULATION_SEED="x")
    assert unseeded.returncode == 2
    assert "Traceback" not in unseeded.stderr


def test_the_program_imports_only_what_it_needs(tmp_path: Path) -> None:
    """It imports few modules and none of this package, since every import delays thousands of runs."""
    ended = run_program(tmp_path, document(max_ticks=1), PYTHONPROFILEIMPORTTIME="1")
    assert ended.returncode == 0
    imported = {
        line.rpartition("|")[2].strip() for line in ended.stderr.splitlines() if line.startswith("import time:")
    }
    assert {"yaml", "random", "json"} <= imported
    assert not {name for name in imported if name.startswith("ems_worker")}
    assert not imported & {"asyncio", "dataclasses", "inspect", "logging", "numpy", "pydantic", "socket", "subprocess"}
    assert len(imported) < 150


def test_progress_is_reported_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends within a second reports nothing; a longer one reports its present tick."""
    config = simulator.parse(document(max_ticks=10))
    reported: list[int] = []
    clock = itertools.count(0.0, 0.05)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    simulator.simulate(config, 1, reported.append)
    assert reported == []
    clock = itertools.count(0.0, 0.4)
    simulator.simulate(config, 1, reported.append)
    assert reported == [3, 6, 9]


def test_the_program_writes_its_progress(tmp_path: Path) -> None:
    """The file progress.json in the output directory has the tick and how many there are at most."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document(max_ticks=1_000_000)))
    environment = {"SIMULATION_ID": "long", "SIMULATION_CONFIG": str(path), "SIMULATION_SEED": "7"}
    program = subprocess.Popen(
        [sys.executable, "-P", simulator.__file__],
        env={**os.environ, **environment, "SIMULATION_OUTPUT_DIR": str(tmp_path)},
    )
    try:
        asyncio.run(wait.until((tmp_path / "progress.json").exists, what="progress"))
        asyncio.run(wait.until(lambda: (tmp_path / "progress.json").read_text().endswith("}"), what="all of it"))
        progress = json.loads((tmp_path / "progress.json").read_text())
    finally:
        program.kill()
        program.wait()
    assert progress["step"] > 0
    assert progress["total"] == 1_000_000
