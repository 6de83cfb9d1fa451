"""A plan, parsed and checked against its base configuration. All problems are reported at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ems_worker import errors
from ems_worker.core import canonical, seeds
from ems_worker.core.language import (
    aliases,
    checks,
    conflicts,
    described,
    design,
    foreign,
    foreign_plan,
    inject,
    listed,
    options,
    paths,
    quotes,
    resources,
    tracked,
)
from ems_worker.core.language.axes import Axis, AxisParser
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.design import Design
from ems_worker.core.language.inject import Inject
from ems_worker.core.language.listed import ListedPointParser
from ems_worker.core.language.options import ExperimentLimits, Seeds, Settle
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.tracked import TrackedMetric
from ems_worker.core.points import derived, dimensions, names, redraw, work_limits
from ems_worker.core.points.counting import MAX_COUNTED
from ems_worker.core.points.grid import Grid
from ems_worker.core.points.work_limits import WorkLimits

JSON = canonical.JSON

KEYS: Final = (
    "experiment_id",
    "experiment_name",
    "description",
    "base_config_file_path",
    "base_config_path",
    "base",
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
    "settle",
    "hold",
    "keep_open",
    "group",
    "tags",
    "labels",
    "model_version",
    "resources",
    "simulator",
    "allow_new_paths",
    *aliases.LONG_NAMES,
)
# Keys that name the schema to editors.
IGNORED_KEYS: Final = ("$schema",)
UNSUPPORTED_KEYS: Final = ("execution_sequence", "reuse_results")
_SPACE: Final = ("parameter_space",)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A path of the configuration that points set, and its name in documents, tables and columns.

    With `replace` a mapping replaces the present one in place of merging. `unit` and `label` are for tables and
    pictures.
    """

    path: paths.Path
    name: str
    replace: bool = False
    unit: str | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A valid plan with its defaults. `base` is the base configuration in its original order; nothing modifies it."""

    experiment_id: str | None
    experiment_name: str | None
    description: str | None
    model_version: str | None
    base: dict[str, JSON]
    grid: Grid
    design: Design
    parameters: tuple[Parameter, ...]
    replicates: int
    seeds: Seeds
    inject: Inject
    metrics: tuple[TrackedMetric, ...]
    limits: ExperimentLimits
    settle: Settle
    hold: bool
    keep_open: bool
    group: str | None
    tags: tuple[str, ...]
    labels: dict[str, str]
    warnings: tuple[errors.Problem, ...]


def base_reference(data: Mapping[str, object]) -> str | None:
    """The path of the base file that parsing the plan needs; None if the plan contains the base configuration."""
    if canonical.BASE_KEY in data:
        return None
    for key in canonical.BASE_PATH_KEYS:
        path = data.get(key)
        if isinstance(path, str):
            return path
    return None


def parse(
    data: Mapping[str, object], base: Mapping[str, object] | None = None, limits: WorkLimits | None = None
) -> Plan:
    """Parses a plan. `base` is the content of the base file, needed if `base_reference` names one.

    Raises PlanRejected with all problems. `limits` are by default `work_limits.DEFAULT`.
    """
    problems = Problems()
    _check_keys(data, problems)
    data = aliases.expanded(data)
    content = _base(data, base, problems)
    allow_new = checks.flag(data, "allow_new_paths", problems)
    replicates = _replicates(data, problems)
    seeding = options.parse_seeds(data["seeds"], replicates, problems) if "seeds" in data else Seeds()
    if content is None:  # paths can't be checked without the base configuration
        design.parse_constraints(data.get("constraints", []), problems)
        _parse_rest(data, problems)
        raise errors.PlanRejected(problems.collected())
    config = ConfigPaths(content, allow_new, problems)
    axis_parser = AxisParser(config)
    if "parameter_space" in data:
        location = ("parameter_space",)
        axis_parser.parse(problems.mapping(data["parameter_space"], location) or {}, location)
    point_parser = ListedPointParser(config)
    if "runs" in data:
        point_parser.parse(data["runs"], ("runs",))
    injected = inject.parse(data["inject"], content, problems) if "inject" in data else Inject()
    conflicts.check(config, axis_parser.axes, point_parser, injected)
    chosen, space = design.parse(data.get("design", {}), axis_parser.axes, seeding.root, problems)
    constraints = design.parse_constraints(data["constraints"], problems) if "constraints" in data else []
    resolved = names.resolve(space, constraints, listed=point_parser, base=content, problems=problems)
    rest = _parse_rest(data, problems)
    limits = limits or work_limits.DEFAULT
    if not len(problems):
        resolved = redraw.redrawn(resolved, chosen.draw, limits.redraw_steps, problems)
    if len(problems):  # combinations of invalid values would only cause more problems
        raise errors.PlanRejected(problems.collected())
    varying = dimensions.arrange(resolved, chosen.zips, point_parser.points or None)
    grid = Grid(resolved, varying, point_parser.points, problems=problems, limits=limits)
    if grid.exact:
        check_size(grid, chosen, replicates, problems)
    if len(problems):
        raise errors.PlanRejected(problems.collected())
    options.check_quorum(rest["settle"], grid.total * replicates, problems)
    first = (params for _, params in grid.combinations(0)) if grid.exact else [grid.example()]
    derived.judge(resolved, first, problems)
    return Plan(
        **rest,
        base=content,
        grid=grid,
        design=chosen,
        parameters=_parameters(space, point_parser),
        replicates=replicates,
        seeds=seeding,
        inject=injected,
        warnings=problems.warnings(),
    )


def _parse_rest(data: Mapping[str, object], problems: Problems) -> dict[str, Any]:
    """The fields of a plan that don't depend on its base configuration."""
    return {
        **described.parse(data, problems),
        "metrics": tracked.parse(data.get("metrics_to_track", []), problems),
        "limits": options.parse_limits(data.get("limits", {}), problems),
        "settle": options.parse_settle(data.get("settle", {}), problems),
        "hold": checks.flag(data, "hold", problems),
        "keep_open": checks.flag(data, "keep_open", problems),
        "tags": described.tags(data.get("tags", []), problems),
        "labels": {
            **listed.parse_labels(data.get("labels", {}), ("labels",), problems),
            **resources.labels(data, problems),
        },
    }


def _replicates(data: Mapping[str, object], problems: Problems) -> int:
    location = ("num_replicates_per_run",)
    given = data.get(location[0], 1)
    if isinstance(given, Mapping):
        problems.add("not_supported_yet", location, "replicates 'until' a metric is precise are not supported yet")
        return 1
    return problems.integer(given, location, 1, seeds.REPLICATES - 1) or 1


def check_size(grid: Grid, chosen: Design, replicates: int, problems: Problems) -> None:
    """Reports a counted grid that has no points, or too many points or jobs."""
    jobs = grid.total * replicates
    if grid.total >= seeds.POINTS:
        shown = f"{grid.total:,}" if grid.total < MAX_COUNTED else f"more than {MAX_COUNTED:,}"
        message = f"{shown} points; an experiment has fewer than {seeds.POINTS:,}"
        problems.add("too_many_points", _SPACE, message, on_key=True)
    elif grid.total == 0 and not len(problems):
        problems.add("no_points", ("constraints",), "no combination satisfies the constraints", on_key=True)
    elif chosen.max_jobs is not None and jobs > chosen.max_jobs:
        message = f"the plan has {jobs:,} jobs, and its max_jobs is {chosen.max_jobs:,}"
        problems.add("too_many_jobs", ("design", "max_jobs"), message)


def _check_keys(data: Mapping[str, object], problems: Problems) -> None:
    problems.keys(data, (), (*KEYS, *UNSUPPORTED_KEYS, *IGNORED_KEYS), foreign_plan.KEYS)
    aliases.check(data, problems)
    for key in UNSUPPORTED_KEYS:
        if key in data:
            problems.add("not_supported_yet", (key,), f"{key!r} is not supported yet", on_key=True)
    named = {"experiment_id", "experiment_name", "name"}
    if named.isdisjoint(data) and named.isdisjoint(foreign.meant(foreign_plan.KEYS, data)):
        problems.add("missing_key", (), "a plan needs an 'experiment_name' or an 'experiment_id'", on_key=True)


def _base(data: Mapping[str, object], base: Mapping[str, object] | None, problems: Problems) -> dict[str, JSON] | None:
    """The base configuration: the inline one, otherwise the given one. A path beside an inline one is informational."""
    given: list[str] = []
    for key in canonical.BASE_PATH_KEYS:
        if key == "base" and isinstance(data.get(key), Mapping):
            message = "'base' names the file of the base configuration; its content is written under 'base_config'"
            problems.add("wrong_type", (key,), message)
        elif key in data and (path := problems.text(data[key], (key,))) is not None:
            given.append(path)
    if len(given) > 1 and "base" in data:
        message = "'base' is another name of base_config_file_path: keep one of them"
        problems.add("conflicting_keys", ("base",), message, on_key=True)
    elif len(set(given)) > 1:
        message = "base_config_file_path and base_config_path are two names of the same key; they name different files"
        problems.add("conflicting_keys", ("base_config_path",), message, on_key=True)
    if canonical.BASE_KEY in data:
        content: object = problems.mapping(data[canonical.BASE_KEY], (canonical.BASE_KEY,))
    elif base is None:
        if given:
            message = f"the base configuration {quotes.name(given[0])} was not read; send its content as 'base_config'"
            key = next(key for key in canonical.BASE_PATH_KEYS if key in data)
            problems.add("base_unavailable", (key,), message)
        elif not any(key in data for key in canonical.BASE_PATH_KEYS):
            message = "a plan needs a base configuration: 'base_config_file_path', or 'base_config' with its content"
            problems.add("missing_key", (), message, on_key=True)
        return None
    else:
        content = base
    return content if isinstance(content, dict) else None


def _parameters(space: list[Axis], point_parser: ListedPointParser) -> tuple[Parameter, ...]:
    replaced = point_parser.replaced
    listed = [Parameter(path, name, name in replaced) for name, path in point_parser.parameters.items()]
    return (*listed, *(Parameter(axis.path, axis.name, axis.replace, axis.unit, axis.label) for axis in space))
