"""The plan of a command line and its axes: `ems run 'python train.py --lr {lr}' lr=0.1,0.01`."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.cli import exits

Document = dict[str, Any]

_SEED: Final = "seed"
_MAX_SEEDS: Final = 1000
_NUMBER: Final = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?"
# A range with something missing or too much; not a path such as ../data.
_HALF_RANGE = re.compile(r"[-+]?[.\d]*\d\.\.|\.\.[-+]?\.?\d")
_RANGE: Final = re.compile(rf"({_NUMBER})\.\.({_NUMBER})(?:/(\d{{1,9}}))?")
_NAME: Final = re.compile(r"[^\s=]+")
_NO_GOALS: Final = frozenset(
    {
        "least",
        "most",
        "low",
        "lower",
        "lowest",
        "high",
        "higher",
        "highest",
        "minimum",
        "maximum",
        "minimise",
        "maximise",
    }
)
_GOALS: Final = {"min": "minimize", "minimize": "minimize", "max": "maximize", "maximize": "maximize"}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What varies, how often, and what is measured. `axes` are axes of the plan language by path."""

    axes: Mapping[str, Any]
    seeds: tuple[int, ...]
    replicates: int | None
    metrics: Sequence[Document]
    config: Mapping[str, Any] | None

    @property
    def parameters(self) -> list[str]:
        """The names that a placeholder may have: those of the axes and all paths of the base configuration."""
        return list(dict.fromkeys([*self.axes, *paths(self.config or {})]))

    def plan(self, name: str, **more: Any) -> Document:
        """The plan's document."""
        document: Document = {"experiment_name": name, **more, "base_config": dict(self.config or {})}
        if self.config is None:  # then the axes are its keys
            document["allow_new_paths"] = True
        if self.axes:
            document["parameter_space"] = dict(self.axes)
        else:  # one point, which is the base configuration
            document["runs"] = [{"params_override": {}}]
        replicates = len(self.seeds) or self.replicates or 1
        document["num_replicates_per_run"] = replicates
        if replicates <= _MAX_SEEDS:
            # Many libraries take only seeds below 2^32, and those of plans are larger.
            seeds = self.seeds or range(1, replicates + 1)
            document["seeds"] = {"policy": "list", "values": list(seeds)}
        if self.seeds:
            document["inject"] = {"seed": _SEED}
        if self.metrics:
            document["metrics_to_track"] = list(self.metrics)
        return document


def of_words(
    words: Sequence[str], *, replicates: int | None, metrics: Sequence[Document], config: Mapping[str, Any] | None
) -> Sweep:
    """The sweep of words such as `lr=0.1,0.01`. `seed=1,2,3` lists the seeds of the replicates. Raises Misused."""
    axes: dict[str, Any] = {}
    for word in words:
        name, values = _split(word)
        if name in axes:
            raise exits.Misused(f"{word!r}: {name!r} is given twice; separate its values by commas")
        axes[name] = axis(name, values)
    seeds = _seeds(axes.pop(_SEED)) if _SEED in axes else ()
    if seeds and replicates not in (None, len(seeds)):
        raise exits.Misused(f"seed lists {len(seeds)} seeds, one for each replicate, and --replicates is {replicates}")
    return Sweep(axes, seeds, replicates, metrics, config)


def axis(name: str, text: str) -> Any:
    """An axis of the plan language from `1,2,3`, `0.8..0.95/4`, `1..10`, or JSON such as `{"logrange": {...}}`."""
    if found := _RANGE.fullmatch(text):
        return {"range": _range(name, *found.groups())}
    if text.lstrip().startswith(("{", "[")):
        value = _read(name, f"value: {text}", "value")
        return value if isinstance(value, dict | list) else [value]
    listed = _read(name, f"value: [{text}]", "value")
    if any(isinstance(value, str) and _RANGE.fullmatch(value) for value in listed):
        form = '{"concat": [[1, 2], {"range": {"start": 10, "stop": 20, "num": 3}}]}'
        raise exits.Misused(f"{name}={text}: a range stands alone; to join it with others: {name}='{form}'")
    if half := next((value for value in listed if isinstance(value, str) and _HALF_RANGE.match(value)), None):
        raise exits.Misused(f"{name}={text}: {half!r} is half a range; write START..STOP/COUNT, such as 0.1..0.5/5")
    return listed


def goals(names: Sequence[str], *, minimize: bool, maximize: bool) -> list[Document]:
    """`metrics_to_track` from `NAME` or `NAME:max`. The flags are for the first one that has no goal of its own."""
    if minimize and maximize:
        raise exits.Misused("give --minimize or --maximize; to have a goal for each metric: --metric NAME:max")
    metrics: list[Document] = []
    for name in names:
        stem, colon, goal = name.rpartition(":")
        if stem and goal in _NO_GOALS:
            raise exits.Misused(f"--metric {name}: after the colon is 'max' or 'min'")
        metrics.append({"name": stem, "goal": _GOALS[goal]} if colon and goal in _GOALS else {"name": name})
    if minimize or maximize:
        without = next((metric for metric in metrics if "goal" not in metric), None)
        if without is None:
            raise exits.Misused("--minimize and --maximize say which way a metric is better: give --metric NAME")
        without["goal"] = "minimize" if minimize else "maximize"
    return metrics


def configuration(path: Path) -> Document:
    """A base configuration from a file in YAML or JSON. Raises Misused if it can't be read."""
    try:
        return yaml_reader.read_base(path.read_bytes()).data
    except OSError as failed:
        raise exits.Misused(f"--config {path} can't be read: {failed.strerror}") from failed
    except (errors.PlanRejected, errors.Unreadable) as error:
        raise exits.Misused(f"--config {path}: {error}") from error


def _split(word: str) -> tuple[str, str]:
    name, equals, values = word.partition("=")
    if word.startswith("-"):
        raise exits.Misused(
            f"there is no option {word.partition('=')[0]!r}; if it belongs to the command, put the whole command in "
            "quotes: ems run 'python train.py --lr {lr}' lr=0.1,0.01"
        )
    if not equals or not _NAME.fullmatch(name):
        raise exits.Misused(
            f"{word!r} should be NAME=VALUES, such as lr=0.1,0.01; a command is one word, in quotes: "
            "ems run 'python train.py --lr {lr}' lr=0.1,0.01"
        )
    if not values.strip():
        raise exits.Misused(f"{word!r} has no values; an empty text is {name}='\"\"'")
    return name, values


def _range(name: str, first: str, last: str, count: str | None) -> Document:
    start, stop = (_read(name, f"value: {text.removeprefix('+')}", "value") for text in (first, last))
    if count is not None:
        if int(count) < 1:
            raise exits.Misused(f"{name}={first}..{last}/{count}: a range has at least one value")
        return {"start": start, "stop": stop, "num": int(count)}
    if isinstance(start, int) and isinstance(stop, int):
        return {"start": start, "stop": stop, "step": 1 if start <= stop else -1}
    raise exits.Misused(f"{name}={first}..{last} should say how many values, such as {first}..{last}/5")


def _seeds(given: Any) -> tuple[int, ...]:
    if isinstance(given, dict) and set(given) == {"range"} and given["range"].get("step") == 1:
        start, stop = given["range"]["start"], given["range"]["stop"]
        given = range(start, min(stop, start + _MAX_SEEDS) + 1)
    if not isinstance(given, list | range) or not all(type(seed) is int for seed in given):
        raise exits.Misused("the seeds of replicates are whole numbers, such as seed=1,2,3 or seed=1..5")
    if len(given) > _MAX_SEEDS:
        raise exits.Misused(f"seed has more than {_MAX_SEEDS:,} values; replicates have seeds without it")
    return tuple(given)


def _read(name: str, text: str, key: str) -> Any:
    """A value as a plan reads it."""
    try:
        return yaml_reader.read_plan(text.encode()).data[key]
    except (errors.PlanRejected, errors.Unreadable) as error:
        raise exits.Misused(f"{name}: the values can't be read: {error}") from error


def paths(value: Any, prefix: str = "") -> Iterator[str]:
    """Every path into a configuration, that of a mapping or list before those of its values."""
    pairs: Iterator[tuple[object, Any]] = iter(())
    if isinstance(value, dict):
        pairs = iter(value.items())
    elif isinstance(value, list):
        pairs = iter(enumerate(value))
    for key, inner in pairs:
        path = f"{prefix}{key}"
        yield path
        yield from paths(inner, f"{path}.")
