"""A small agent-based model of fish on a reef: the built-in simulator of the local platform.

Fish swim in a two-dimensional world, search for food and eat it. Every tick costs them energy: more in warm water, and
much more beyond the heat that they tolerate. A fish without energy dies; one with plenty of energy shares it with an
offspring. Food grows back up to the capacity of the reef. The same configuration and seed always give exactly the same
run.

The simulator implements the protocol of docs/orchestrator.md. It is started for every run, so that every import delays
every run: it uses neither dataclasses nor any other module of this package.
"""

import csv
import json
import math
import os
import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import yaml

INFEASIBLE = 65
USAGE = 2
_MAX_FISH = 5_000
_BUILT_IN = "this is the built-in fish simulator; for your own program: ems up --simulator COMMAND, or ems run COMMAND"
_REPORT_SECONDS = 1.0
_Cell = tuple[int, int]
_Food = tuple[float, float]


class ConfigError(ValueError):
    """The configuration describes no meaningful run; the text names the value and the reason."""


class Config(NamedTuple):
    """The part of the platform's configuration that this model uses. Lengths are in metres, energies in joules."""

    world_width: float
    world_height: float
    initial_food_count: int
    initial_fish_count: int
    default_agent_energy: float
    swim_speed: float
    vision_range: float
    max_age: int
    food_energy: float
    food_regrowth_rate: float
    water_temperature: float
    optimal_temperature: float
    heat_tolerance: float
    max_ticks: int


class _Rule(NamedTuple):
    """The section of a value under simulation_layer, its range, and its default; a value without one is required."""

    section: str
    low: float
    high: float
    default: float | None = None
    whole: bool = False


_RULES = {
    "world_width": _Rule("world_definition", 1, 10_000),
    "world_height": _Rule("world_definition", 1, 10_000),
    "initial_food_count": _Rule("initial_conditions", 0, 100_000, whole=True),
    "initial_fish_count": _Rule("initial_conditions", 1, _MAX_FISH, whole=True),
    "default_agent_energy": _Rule("agent_defaults", 1, 1_000_000),
    "swim_speed": _Rule("agent_defaults", 0, 1_000, default=1.5),
    "vision_range": _Rule("agent_defaults", 0.1, 1_000, default=6.0),
    "max_age": _Rule("agent_defaults", 1, 1_000_000, default=250, whole=True),
    "food_energy": _Rule("environment", 0, 1_000_000, default=150.0),
    "food_regrowth_rate": _Rule("environment", 0, 1, default=0.05),
    "water_temperature": _Rule("environment", -2, 45, default=26.0),
    "optimal_temperature": _Rule("environment", -2, 45, default=26.0),
    "heat_tolerance": _Rule("environment", 0, 45, default=3.0),
    "max_ticks": _Rule("run_control", 1, 1_000_000, whole=True),
}


class Tick(NamedTuple):
    """One row of the time series."""

    tick: int
    population: int
    food: int
    mean_energy: float
    births: int
    deaths: int
    food_eaten: int


class Result(NamedTuple):
    """A complete run. `extinction_tick` is None if any fish survived."""

    series: list[Tick]
    population: int
    mean_lifespan: float
    food_eaten: int
    extinction_tick: int | None


class _Fish:
    __slots__ = ("age", "energy", "heading", "x", "y")

    def __init__(self, x: float, y: float, energy: float, heading: float) -> None:
        self.x = x
        self.y = y
        self.energy = energy
        self.heading = heading
        self.age = 0


class _Reef:
    """The food, in square cells as wide as a fish can see: food in sight is in its own cell or an adjacent one."""

    def __init__(self, config: Config, rng: random.Random) -> None:
        self._config = config
        self._rng = rng
        self._cells: dict[_Cell, list[_Food]] = {}
        self._growth = 0.0
        self.count = 0
        for _ in range(config.initial_food_count):
            self._add()

    def _add(self) -> None:
        food = (self._rng.random() * self._config.world_width, self._rng.random() * self._config.world_height)
        self._cells.setdefault(self._cell(*food), []).append(food)
        self.count += 1

    def _cell(self, x: float, y: float) -> _Cell:
        side = self._config.vision_range
        return int(x // side), int(y // side)

    def grow(self) -> None:
        """Lets food grow back in proportion to what is missing from the initial amount, the capacity of the reef."""
        self._growth += self._config.food_regrowth_rate * (self._config.initial_food_count - self.count)
        while self._growth >= 1:
            self._growth -= 1
            self._add()

    def nearest(self, x: float, y: float) -> tuple[float, _Food | None]:
        """The squared distance to the nearest food in sight, and that food."""
        closest, nearest = self._config.vision_range**2, None
        column, row = self._cell(x, y)
        cells = self._cells
        for i in (column - 1, column, column + 1):
            for j in (row - 1, row, row + 1):
                for food in cells.get((i, j), ()):
                    distance = (food[0] - x) ** 2 + (food[1] - y) ** 2
                    if distance < closest:
                        closest, nearest = distance, food
        return closest, nearest

    def take(self, food: _Food) -> None:
        self._cells[self._cell(*food)].remove(food)
        self.count -= 1


def simulate(config: Config, seed: int, report: Callable[[int], None] = lambda tick: None) -> Result:
    """Runs the model. The same arguments give the same result. `report` gets the present tick once a second."""
    rng = random.Random(seed)  # noqa: S311 - not for secrets
    reef = _Reef(config, rng)
    width, height, energy = config.world_width, config.world_height, config.default_agent_energy
    shoal = [
        _Fish(rng.random() * width, rng.random() * height, energy * rng.uniform(0.5, 1), rng.uniform(-math.pi, math.pi))
        for _ in range(config.initial_fish_count)
    ]
    cost = living_cost(config)
    series: list[Tick] = []
    ages_at_death: list[int] = []
    due = time.monotonic() + _REPORT_SECONDS
    for tick in range(1, config.max_ticks + 1):
        eaten = 0
        born: list[_Fish] = []
        alive: list[_Fish] = []
        for fish in shoal:
            eaten += _swim_and_eat(fish, reef, config, rng)
            fish.energy -= cost
            fish.age += 1
            if fish.energy <= 0 or fish.age > config.max_age:
                ages_at_death.append(fish.age)
                continue
            alive.append(fish)
            if fish.energy > 2 * energy and len(shoal) + len(born) < _MAX_FISH:
                fish.energy /= 2
                born.append(_Fish(fish.x, fish.y, fish.energy, rng.uniform(-math.pi, math.pi)))
        deaths = len(shoal) - len(alive)
        shoal = alive + born
        reef.grow()
        mean_energy = math.fsum(fish.energy for fish in shoal) / len(shoal) if shoal else 0.0
        series.append(Tick(tick, len(shoal), reef.count, round(mean_energy, 3), len(born), deaths, eaten))
        if not shoal:
            break
        if time.monotonic() >= due:
            report(tick)
            due = time.monotonic() + _REPORT_SECONDS
    ages = ages_at_death + [fish.age for fish in shoal]
    food_eaten = sum(row.food_eaten for row in series)
    return Result(series, len(shoal), math.fsum(ages) / len(ages), food_eaten, None if shoal else len(series))


def living_cost(config: Config) -> float:
    """The energy that a tick costs a fish: it doubles every 10 degrees, and rises steeply beyond the tolerance."""
    warmth = config.water_temperature - config.optimal_temperature
    stress = max(0.0, warmth - config.heat_tolerance)
    return float(10.0 * 2 ** (warmth / 10) * (1 + 0.25 * stress**2))


def _swim_and_eat(fish: _Fish, reef: _Reef, config: Config, rng: random.Random) -> int:
    """Moves a fish by one tick and returns how much food it ate: 0 or 1. A fish turns at the edges of the world."""
    distance, food = reef.nearest(fish.x, fish.y)
    speed = config.swim_speed
    if food is not None and distance <= speed * speed:
        reef.take(food)
        fish.x, fish.y = food
        fish.energy += config.food_energy
        return 1
    if food is not None:
        fish.heading = math.atan2(food[1] - fish.y, food[0] - fish.x)
    else:
        fish.heading += rng.uniform(-0.6, 0.6)
    x = fish.x + speed * math.cos(fish.heading)
    y = fish.y + speed * math.sin(fish.heading)
    fish.x = min(max(x, 0.0), config.world_width)
    fish.y = min(max(y, 0.0), config.world_height)
    if fish.x != x or fish.y != y:
        fish.heading += math.pi / 2
    return 0


def parse(document: Any) -> Config:
    """The configuration from the platform's nested document. Raises ConfigError with all problems."""
    layer = document.get("simulation_layer") if isinstance(document, Mapping) else None
    if not isinstance(layer, Mapping) or not any(rule.section in layer for rule in _RULES.values()):
        raise ConfigError(f"simulation_layer is missing or not that of a reef\n{_BUILT_IN}")
    values: dict[str, float] = {}
    problems = []
    for name, rule in _RULES.items():
        try:
            values[name] = _value(layer, name, rule)
        except ConfigError as error:
            problems.append(str(error))
    if problems:
        raise ConfigError("; ".join(problems))
    return Config(**values)  # type: ignore[arg-type] # whole numbers are ints by their rule


def _value(layer: Mapping[str, Any], name: str, rule: _Rule) -> float:
    path = f"simulation_layer.{rule.section}.{name}"
    section = layer.get(rule.section)
    value = section.get(name, rule.default) if isinstance(section, Mapping) else rule.default
    if value is None:
        raise ConfigError(f"{path} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{path} is not a number: {value!r}")
    if not rule.low <= value <= rule.high:
        raise ConfigError(f"{path} is {value}, not between {rule.low:g} and {rule.high:g}")
    if rule.whole and value != int(value):
        raise ConfigError(f"{path} is {value}, not a whole number")
    return int(value) if rule.whole else float(value)


def main() -> int:
    """Runs the simulation described by the environment; returns the exit code of the protocol."""
    try:
        simulation_id, config_path = os.environ["SIMULATION_ID"], os.environ["SIMULATION_CONFIG"]
        output_dir, seed = os.environ["SIMULATION_OUTPUT_DIR"], int(os.environ["SIMULATION_SEED"])
    except (KeyError, ValueError) as error:
        return _fail(f"a required environment variable is missing or invalid: {error}", USAGE)
    try:
        with open(config_path, "rb") as file:
            config = parse(yaml.load(file, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))  # noqa: S506 - both are safe
    except (OSError, yaml.YAMLError, ConfigError) as error:
        return _fail(f"configuration: {error}", INFEASIBLE)
    progress = os.path.join(output_dir, "progress.json")
    result = simulate(config, seed, lambda tick: _report(progress, tick, config.max_ticks))
    file_name = f"{simulation_id}.csv"
    with open(os.path.join(output_dir, file_name), "w", newline="", encoding="utf-8") as series:
        csv.writer(series).writerows([Tick._fields, *result.series])
    metrics = {name: value for name, value in result._asdict().items() if name != "series"}
    print(json.dumps({"metrics": metrics, "artifacts": {"time_series": file_name}}))  # noqa: T201 - the result
    return 0


def _report(path: str, tick: int, total: int) -> None:
    with open(path, "w", encoding="utf-8") as file:
        json.dump({"step": tick, "total": total}, file)


def _fail(message: str, code: int) -> int:
    print(message, file=sys.stderr)  # noqa: T201 - the protocol reads the reason from stderr
    return code


if __name__ == "__main__":
    sys.exit(main())
