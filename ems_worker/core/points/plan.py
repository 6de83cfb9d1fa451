"""A plan, parsed and checked against its base configuration. All problems are reported at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
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
    spaces,
    tracked,
)
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.inject import Inject
from ems_worker.core.language.listed import ListedPointParser
from ems_worker.core.language.options import ExperimentLimits, Seeds, Settle
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.spaces import Space
from ems_worker.core.language.tracked import TrackedMetric
from ems_worker.core.points import derived, dimensions, names, redraw, work_limits
from ems_worker.core.points.counting import MAX_COUNTED
from ems_worker.core.points.grid import Grid
from ems_worker.core.points.union import Union
from ems_worker.core.points.work_limits import Work, WorkLimits

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
    "variables",
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

    A variable has an empty path: points have a value for it, and their configurations don't.
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
    spaces: tuple[Space, ...]
    grid: Grid | Union
    max_jobs: int | None
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
        design.parse_constraints(data.get("constraints", []), ("constraints",), problems)
        _parse_rest(data, problems)
        raise errors.PlanRejected(problems.collected())
    config = ConfigPaths(content, allow_new, problems)
    drafts = spaces.parse(data, config)
    point_parser = ListedPointParser(config, {axis.name for draft in drafts for axis in draft.axes if axis.is_variable})
    if "runs" in data:
        point_parser.parse(data["runs"], ("runs",))
    injected = inject.parse(data["inject"], content, problems) if "inject" in data else Inject()
    if spaces.is_too_much(drafts, data, len(point_parser.parameters), problems):
        raise errors.PlanRejected(problems.collected())
    for draft in drafts:
        conflicts.check(config, draft.axes, point_parser, injected)
    conflicts.check_together([draft.axes for draft in drafts], problems)
    chosen = spaces.designed(drafts, data, seeding.root, problems)
    max_jobs = design.max_jobs(data, problems)
    resolved = [
        names.resolve(axes, each.constraints, listed=point_parser, base=content, problems=problems, spaces=len(chosen))
        for each, axes in zip(chosen, spaces.filled(chosen, content), strict=True)
    ]
    rest = _parse_rest(data, problems)
    limits = limits or work_limits.DEFAULT
    if not len(problems):
        steps = limits.redraw_steps // max(1, len(chosen))
        drawn = zip(resolved, chosen, strict=True)
        resolved = [redraw.redrawn(each, space.design.draw, steps, problems) for each, space in drawn]
        with_samples = zip(chosen, resolved, strict=True)
        chosen = tuple(replace(space, axes=[*each.axes[: len(space.axes)]]) for space, each in with_samples)
    if len(problems):  # combinations of invalid values would only cause more problems
        raise errors.PlanRejected(problems.collected())
    work = Work(limits)
    grids = []
    for each, its_names in zip(chosen, resolved, strict=True):
        varying = dimensions.arrange(its_names, each.design.zips, point_parser.points or None)
        grids.append(Grid(its_names, varying, point_parser.points, problems=problems, work=work))
    grid = grids[0] if len(grids) == 1 else Union(grids, resolved, point_parser.points, problems=problems, work=work)
    if grid.exact:
        check_size(grid, max_jobs, replicates, problems)
    if len(problems):
        raise errors.PlanRejected(problems.collected())
    options.check_quorum(rest["settle"], grid.total * replicates, problems)
    for its_grid, its_names in zip(grids, resolved, strict=True):
        derived.judge(its_names, its_grid, problems)
    return Plan(
        **rest,
        base=content,
        spaces=chosen,
        grid=grid,
        max_jobs=max_jobs,
        parameters=_parameters(chosen, point_parser),
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


def check_size(grid: Grid | Union, max_jobs: int | None, replicates: int, problems: Problems) -> None:
    """Reports a counted grid that has no points, or too many points or jobs."""
    jobs = grid.total * replicates
    if grid.total >= seeds.POINTS:
        shown = f"{grid.total:,}" if grid.total < MAX_COUNTED else f"more than {MAX_COUNTED:,}"
        message = f"{shown} points; an experiment has fewer than {seeds.POINTS:,}"
        problems.add("too_many_points", _SPACE, message, on_key=True)
    elif grid.total == 0 and not len(problems):
        location = ("constraints",) if isinstance(grid, Grid) else _SPACE
        problems.add("no_points", location, "no combination satisfies the constraints", on_key=True)
    elif max_jobs is not None and jobs > max_jobs:
        message = f"the plan has {jobs:,} jobs, and its max_jobs is {max_jobs:,}"
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


def _parameters(chosen: Sequence[Space], point_parser: ListedPointParser) -> tuple[Parameter, ...]:
    replaced = point_parser.replaced
    found = {name: Parameter(path, name, name in replaced) for name, path in point_parser.parameters.items()}
    for axis in (axis for space in chosen for axis in space.axes):
        known = found.get(axis.name, Parameter(axis.path, axis.name, axis.replace))
        found[axis.name] = replace(known, unit=known.unit or axis.unit, label=known.label or axis.label)
    return tuple(found.values())
