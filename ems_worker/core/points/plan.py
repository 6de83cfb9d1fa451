"""A plan: what a publisher sent, checked against its base configuration. Everything that is wrong is told at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical, ids, seeds
from ems_worker.core.language import axes, conflicts, design, listed, options, paths, problems
from ems_worker.core.points import derived, dimensions, grid, scope

JSON = canonical.JSON

# The parts of a plan have modules of their own; users of plans find their types here.
Goal = options.Goal
TrackedMetric = options.TrackedMetric
Seeds = options.Seeds
Inject = options.Inject
Limits = options.Limits
MaxFailed = options.MaxFailed
Design = design.Design

KEYS: Final = (
    "experiment_id",
    "experiment_name",
    "description",
    "base_config_file_path",
    "base_config_path",
    "base_config",
    "parameter_space",
    "design",
    "constraints",
    "runs",
    "num_replicates_per_run",
    "seeds",
    "inject",
    "metrics_to_track",
    "limits",
    "group",
    "tags",
    "labels",
    "model_version",
    "allow_new_paths",
)
# Keys that only tell an editor which schema to check against.
IGNORED: Final = ("$schema",)
NOT_YET: Final = ("settle", "execution_sequence", "reuse_results", "keep_open")
# More than any experiment has points: before conditions and constraints there may be more combinations than points.
_MOST_COMBINATIONS: Final = 2**40
_LONGEST_NAME: Final = 200
_LONGEST_DESCRIPTION: Final = 10_000
_LONGEST_TAG: Final = 64
_MOST_TAGS: Final = 64


@dataclass(frozen=True, slots=True)
class Parameter:
    """A path of the configuration that points set, and its name in documents, tables and columns."""

    path: paths.Path
    name: str


@dataclass(frozen=True, slots=True)
class Plan:
    """An accepted plan, defaults filled in. `base` is the base configuration in its own order; nothing changes it."""

    experiment_id: str | None
    experiment_name: str | None
    description: str | None
    model_version: str | None
    base: dict[str, JSON]
    grid: grid.Grid
    design: Design
    parameters: tuple[Parameter, ...]
    replicates: int
    seeds: Seeds
    inject: Inject
    metrics: tuple[TrackedMetric, ...]
    limits: Limits
    group: str | None
    tags: tuple[str, ...]
    labels: dict[str, str]
    warnings: tuple[errors.Problem, ...]


def base_reference(data: Mapping[str, object]) -> str | None:
    """The path of the base file that has to be read before the plan can be parsed; None if its content is there."""
    if canonical.BASE_KEY in data:
        return None
    for key in canonical.BASE_PATH_KEYS:
        path = data.get(key)
        if isinstance(path, str):
            return path
    return None


def parse(data: Mapping[str, object], base: Mapping[str, object] | None = None) -> Plan:
    """The plan that this data is. `base` is the content of the base file, needed where `base_reference` names one.

    Raises PlanRejected with every problem found.
    """
    found, odd = problems.Problems(), problems.Problems()
    _check_keys(data, found)
    config = _base(data, base, found)
    if config is None:  # no path can be checked without it, and to guess would bring errors that are none
        raise errors.PlanRejected(found.found())
    allow_new = bool(found.boolean(data.get("allow_new_paths", False), ("allow_new_paths",)))

    replicates = _replicates(data, found)
    seeding = options.read_seeds(data["seeds"], replicates, found) if "seeds" in data else Seeds()
    reader = axes.Reader(config, allow_new, found, odd)
    if "parameter_space" in data:
        reader.read(found.mapping(data["parameter_space"], ("parameter_space",)) or {}, ("parameter_space",))
    runs = listed.Reader(config, allow_new, found, odd)
    if "runs" in data:
        runs.read(data["runs"], ("runs",))
    inject = options.read_inject(data["inject"], config, found) if "inject" in data else Inject()
    conflicts.check(config, reader.axes, runs, inject, found)
    chosen, space = design.read(data.get("design", {}), reader.axes, seeding.root, found, odd)
    constraints = design.read_constraints(data["constraints"], found) if "constraints" in data else []
    names = scope.resolve(space, constraints, runs, config, found)
    named = {
        "experiment_id": _experiment_id(data, found),
        "experiment_name": _line(data, "experiment_name", _LONGEST_NAME, found),
        "description": _text(data, "description", _LONGEST_DESCRIPTION, found),
        "model_version": _line(data, "model_version", _LONGEST_NAME, found),
        "group": found.text(data["group"], ("group",), ids.TOKEN, _ID_FORM) if "group" in data else None,
    }
    metrics = options.read_metrics(data["metrics_to_track"], found) if "metrics_to_track" in data else ()
    limits = options.read_limits(data["limits"], found) if "limits" in data else Limits()
    tags = _tags(data["tags"], found) if "tags" in data else ()
    labels = listed.read_labels(data["labels"], ("labels",), found) if "labels" in data else {}
    if len(found):  # combinations of what is wrong would only be wrong in turn
        raise errors.PlanRejected(found.found())
    combined = _grid(names, chosen, runs, replicates, found)
    if len(found):
        raise errors.PlanRejected(found.found())
    derived.judge(names, (params for _, params in combined.combinations(0, derived.MOST)), odd)
    return Plan(
        **named,
        base=config,
        grid=combined,
        design=chosen,
        parameters=_parameters(space, runs),
        replicates=replicates,
        seeds=seeding,
        inject=inject,
        metrics=metrics,
        limits=limits,
        tags=tags,
        labels=labels,
        warnings=odd.found(),
    )


def _replicates(data: Mapping[str, object], found: problems.Problems) -> int:
    place = ("num_replicates_per_run",)
    given = data.get(place[0], 1)
    if isinstance(given, Mapping):
        found.add("not_supported_yet", place, "replicates 'until' a metric is known well are not supported yet")
        return 1
    return found.integer(given, place, 1, seeds.REPLICATES - 1) or 1


def _grid(
    names: scope.Names,
    chosen: design.Design,
    runs: listed.Reader,
    replicates: int,
    found: problems.Problems,
) -> grid.Grid:
    """The combinations, with a problem if there are none or too many."""
    varying = dimensions.make(names, chosen.zips, runs.runs or None)
    raw = prod(block.size for block in varying)
    where = ("parameter_space",)
    if raw >= _MOST_COMBINATIONS:
        message = f"over {_MOST_COMBINATIONS:,} combinations; an experiment has fewer than {seeds.POINTS:,} points"
        found.add("too_many_points", where, message, on_key=True)
        raise errors.PlanRejected(found.found())
    made = grid.Grid(names, varying, runs.runs, found)
    jobs = made.total * replicates
    bound = "" if made.exact else "up to "
    if made.total >= seeds.POINTS:
        message = f"{bound}{made.total:,} points; an experiment has fewer than {seeds.POINTS:,}"
        found.add("too_many_points", where, message, on_key=True)
    elif made.total == 0 and not len(found):
        found.add("no_points", ("constraints",) if names.constraints else (), "no combination is left", on_key=True)
    elif not made.exact and made.total > made.most_tried:
        message = f"constraints and conditions couple too many axes: {made.total:,} combinations would have to be tried"
        found.add("too_many_combinations", ("constraints",), f"{message}, {made.most_tried:,} at most are", on_key=True)
    elif made.work > grid.MOST_DERIVED:
        message = "derived values depend on too many combinations of what they name to be worked out at all of them"
        found.add("too_many_combinations", where, message, on_key=True)
    elif made.exact and chosen.max_jobs is not None and jobs > chosen.max_jobs:
        message = f"{jobs:,} jobs, and this plan allows {chosen.max_jobs:,}"
        found.add("too_many_jobs", ("design", "max_jobs"), message)
    return made


_ID_FORM: Final = "1 to 64 of letters, digits, _ and -, the first a letter or digit"


def _check_keys(data: Mapping[str, object], found: problems.Problems) -> None:
    found.keys(data, (), (*KEYS, *NOT_YET, *IGNORED))
    for key in NOT_YET:
        if key in data:
            found.add("not_supported_yet", (key,), f"{key!r} is not supported yet", on_key=True)
    if "experiment_id" not in data and "experiment_name" not in data:
        found.add("missing_key", (), "a plan needs an 'experiment_name' or an 'experiment_id'", on_key=True)


def _base(
    data: Mapping[str, object], base: Mapping[str, object] | None, found: problems.Problems
) -> dict[str, JSON] | None:
    """The base configuration's content: inline, else as given; a path beside an inline one only says where it was."""
    given: list[str] = []
    for key in canonical.BASE_PATH_KEYS:
        path = found.text(data[key], (key,)) if key in data else None
        if path is not None:
            given.append(path)
    if len(set(given)) > 1:
        message = "base_config_file_path and base_config_path are one key by two names; they name different files"
        found.add("conflicting_keys", ("base_config_path",), message, on_key=True)
    if canonical.BASE_KEY in data:
        content: object = found.mapping(data[canonical.BASE_KEY], (canonical.BASE_KEY,))
    elif base is None:
        if given:
            message = f"the base configuration {given[0]!r} was not read; send its content as 'base_config'"
            found.add("base_unavailable", (next(key for key in canonical.BASE_PATH_KEYS if key in data),), message)
        elif not any(key in data for key in canonical.BASE_PATH_KEYS):
            message = "a plan needs a base configuration: 'base_config_file_path', or 'base_config' with its content"
            found.add("missing_key", (), message, on_key=True)
        return None
    else:
        content = base
    return content if isinstance(content, dict) else None


def _parameters(space: list[axes.Axis], runs: listed.Reader) -> tuple[Parameter, ...]:
    listed = [Parameter(path, name) for name, path in runs.parameters.items()]
    return (*listed, *(Parameter(axis.path, axis.name) for axis in space))


def _experiment_id(data: Mapping[str, object], found: problems.Problems) -> str | None:
    if "experiment_id" not in data:
        return None
    return found.text(data["experiment_id"], ("experiment_id",), ids.EXPERIMENT_ID, _ID_FORM)


def _text(data: Mapping[str, object], key: str, longest: int, found: problems.Problems) -> str | None:
    text = found.text(data[key], (key,)) if key in data else None
    if text is not None and len(text) > longest:
        found.add("out_of_range", (key,), f"this has {len(text)} letters; at most {longest} are allowed")
    return text


def _line(data: Mapping[str, object], key: str, longest: int, found: problems.Problems) -> str | None:
    text = _text(data, key, longest, found)
    if text is not None and (not text.strip() or not text.isprintable()):
        found.add("bad_format", (key,), f"{problems.brief(text)} is not one line of visible text")
    return text


def _tags(data: object, found: problems.Problems) -> tuple[str, ...]:
    tags: dict[str, None] = {}
    items = found.sequence(data, ("tags",)) or ()
    if len(items) > _MOST_TAGS:
        found.add("out_of_range", ("tags",), f"{len(items)} tags; at most {_MOST_TAGS} are allowed")
        return ()
    for index, item in enumerate(items):
        text = found.text(item, ("tags", index))
        if text is not None and not (0 < len(text) <= _LONGEST_TAG and text.isprintable()):
            found.add("bad_format", ("tags", index), f"a tag is one line of at most {_LONGEST_TAG} letters")
        elif text is not None:
            tags[text] = None
    return tuple(tags)
