"""Whether one plan may take the place of another in a running experiment, and if not, why."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import aliases, paths, quotes
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Sampled
from ems_worker.core.language.options import Seeds
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.spaces import Space
from ems_worker.core.points import plan as plans
from ems_worker.core.points.plan import Plan

# Keys that may differ, or that are compared in a way of their own.
_OWN_WAY: Final = frozenset(
    {
        "parameter_space",
        "variables",
        "constraints",
        "runs",
        "design",
        "num_replicates_per_run",
        "limits",
        "labels",
        "seeds",
        "experiment_id",
        canonical.BASE_KEY,
        *canonical.BASE_PATH_KEYS,
        *plans.IGNORED_KEYS,
    }
)
# What the other keys mean: two plans that write the same in two ways don't differ.
_MEANING: Final[Mapping[str, Callable[[Plan], object]]] = {
    "experiment_name": lambda plan: plan.experiment_name,
    "description": lambda plan: plan.description,
    "inject": lambda plan: plan.inject,
    "metrics_to_track": lambda plan: plan.metrics,
    "group": lambda plan: plan.group,
    "tags": lambda plan: plan.tags,
    "model_version": lambda plan: plan.model_version,
    "settle": lambda plan: plan.settle,
    "hold": lambda plan: plan.hold,
    "keep_open": lambda plan: plan.keep_open,
}
_ALLOWED: Final = (
    "Extend may change parameter_space, variables, constraints, runs, design.samples, num_replicates_per_run, limits "
    "and labels"
)
_ELSE: Final = "leave it as it was, or publish the plan as an experiment of its own"
# Differing paths of one key that are reported.
_MAX_PATHS: Final = 10


@dataclass(frozen=True, slots=True)
class Version:
    """A plan as it was sent, and what it was parsed to."""

    document: Mapping[str, Any]
    plan: Plan


def compare(
    old: Version, new: Version, *, experiment_id: str, parameters: Mapping[str, str], withdraw: bool
) -> tuple[errors.Problem, ...]:
    """Why the new plan can't take the place of the old one in this experiment: a problem a path; none if it can.

    `parameters` has the dotted path of every parameter that points of the experiment have, by its name. With `withdraw`
    samples may be taken away.
    """
    old, new = (replace(version, document=aliases.expanded(version.document)) for version in (old, new))
    problems = Problems()
    _compare_fixed(old, new, experiment_id, problems)
    _compare_base(old, new, problems)
    _compare_seeds(old, new, problems)
    for before, after in zip(old.plan.spaces, new.plan.spaces, strict=False):
        _compare_design(before, after, new.document, withdraw=withdraw, problems=problems)
    _compare_names(new, parameters, problems)
    _compare_replaced(old, new, parameters, problems)
    _compare_suffixes(old, new, problems)
    if new.plan.replicates < old.plan.replicates:
        message = f"the experiment has {old.plan.replicates:,} replicates, and extend takes none away"
        location = ("num_replicates_per_run",)
        problems.add("fewer_replicates", location, f"{message}; exclude or cancel them with a 'where' instead")
    return problems.collected()


def _refuse(location: quotes.Location, message: str, problems: Problems) -> None:
    problems.add("not_extensible", location, message, on_key=True)


def _compare_fixed(old: Version, new: Version, experiment_id: str, problems: Problems) -> None:
    for key in dict.fromkeys((*old.document, *new.document)):
        meaning = _MEANING.get(key)
        if key in _OWN_WAY or (meaning is not None and meaning(old.plan) == meaning(new.plan)):
            continue
        before, after = ({key: each.document[key]} if key in each.document else {} for each in (old, new))
        for path in islice(canonical.differences(before, after), _MAX_PATHS):
            _refuse(tuple(path.split(".")), f"this differs from the experiment's plan. {_ALLOWED}; {_ELSE}", problems)
    if new.plan.experiment_id not in (None, experiment_id):
        message = f"the plan is of experiment {new.plan.experiment_id}, and {experiment_id} is extended"
        _refuse(("experiment_id",), message, problems)


def _compare_base(old: Version, new: Version, problems: Problems) -> None:
    differing = list(islice(canonical.differences(old.plan.base, new.plan.base), _MAX_PATHS + 1))
    if not differing:
        return
    key = next(key for key in (canonical.BASE_KEY, *canonical.BASE_PATH_KEYS) if key in new.document)
    shown = ", ".join(differing[:_MAX_PATHS]) + (" and more" if len(differing) > _MAX_PATHS else "")
    message = f"the base configuration differs from the experiment's in {shown}"
    _refuse((key,), f"{message}. {_ALLOWED}; {_ELSE}", problems)


def _compare_seeds(old: Version, new: Version, problems: Problems) -> None:
    before, after = old.plan.seeds, new.plan.seeds
    kept = Seeds(after.policy, after.root, after.values[: len(before.values)])
    if before != kept:
        message = "seeds differ from those of the experiment's plan; more of them may only follow in 'values'"
        _refuse(("seeds",), f"{message}. {_ELSE[0].upper()}{_ELSE[1:]}", problems)


def _compare_design(old: Space, new: Space, document: Mapping[str, Any], *, withdraw: bool, problems: Problems) -> None:
    """Reports what would give a sampled parameter of a space other values at the samples that are there."""
    before, after = _sampled(old), _sampled(new)
    sampler, at = old.design.sampler, new.design.location
    if new.design.sampler != sampler:
        location = (*at, "sampler") if paths.has(dict(document), (*at, "sampler")) else at
        _refuse(location, f"the experiment's sampler is {sampler}, and another one draws other samples", problems)
        return
    if not before:
        return
    if old.design.seed != new.design.seed:
        message = f"the experiment's samples are drawn with seed {old.design.seed}, and another one gives other samples"
        _refuse((*at, "seed"), message, problems)
    for dotted in dict.fromkeys((*before, *after)):
        _compare_sampled(dotted, before.get(dotted), after.get(dotted), problems)
    if sampler != "random" and [*before] != [*after] and {*before} == {*after}:
        message = f"{sampler} draws sampled parameters in the order of the plan: {', '.join(before)}; keep it"
        _refuse(("parameter_space",), message, problems)
    _compare_samples(old, new, withdraw, problems)


def _compare_sampled(dotted: str, before: Axis | None, after: Axis | None, problems: Problems) -> None:
    if before is None:
        assert after is not None
        message = f"{dotted!r} isn't sampled in the experiment's plan, and its samples would make every point another"
        _refuse(after.location, f"{message}; {_ELSE}", problems)
    elif after is None:
        message = f"{dotted!r} is sampled in the experiment's plan, and without it every point would be another"
        _refuse(("parameter_space",), f"{message}; {_ELSE}", problems)
    elif repr(_sampling(before)) != repr(_sampling(after)):
        message = f"{dotted!r} has another distribution than in the experiment's plan, so that its samples would move"
        _refuse(after.location, f"{message}; {_ELSE}", problems)


def _compare_samples(old: Space, new: Space, withdraw: bool, problems: Problems) -> None:
    location = (*new.design.location, "samples")
    before, after = old.design.samples or 0, new.design.samples or 0
    if old.design.sampler == "lhs" and before != after:
        message = (
            f"a latin hypercube divides each parameter into as many strata as it has samples, so that {after:,} "
            f"samples are all others than {before:,}; random, sobol and halton designs can be extended"
        )
        _refuse(location, message, problems)
    elif after < before and not withdraw:
        message = (
            f"the experiment has {before:,} samples; with 'withdraw' those after the first {after:,} are withdrawn"
        )
        problems.add("fewer_samples", location, message)
    elif not len(problems) and _moved(old, new, min(before, after)):
        message = "'refill' replaces other samples than in the experiment's plan, because the constraints differ"
        _refuse(("constraints",), f"{message}; {_ELSE}", problems)


def _moved(old: Space, new: Space, count: int) -> bool:
    """Whether any of the first `count` samples have other values: which are replaced depends on more than the axes."""
    draws = [each.design.draw for each in (old, new)]
    if not any(draw is not None and draw.refill for draw in draws):
        return False
    before, after = _sampled(old), _sampled(new)
    return any(axis.values[:count] != after[dotted].values[:count] for dotted, axis in before.items())


def _compare_names(new: Version, parameters: Mapping[str, str], problems: Problems) -> None:
    """Reports names that mean another path than before, and paths with another name: points are stored by name."""
    names = {path: name for name, path in parameters.items() if path}
    locations = {axis.name: axis.location for space in new.plan.spaces for axis in space.axes}
    for parameter in new.plan.parameters:
        dotted = paths.written(new.plan.base, parameter.path)
        location = locations.get(parameter.name, ("runs",))
        if names.get(dotted, parameter.name) != parameter.name:
            message = f"{dotted!r} is called {names[dotted]!r} in the experiment, and now {parameter.name!r}"
            _refuse(location, f"{message}; keep its name", problems)
        elif parameters.get(parameter.name, dotted) != dotted:
            before = parameters[parameter.name]
            message = f"{parameter.name!r} stands for {repr(before) if before else 'a variable'} in the experiment"
            _refuse(location, f"{message}; choose another name", problems)


def _compare_replaced(old: Version, new: Version, parameters: Mapping[str, str], problems: Problems) -> None:
    """Reports parameters of points that would merge where they replaced, or the other way round."""
    before, after = ({each.name for each in version.plan.parameters if each.replace} for version in (old, new))
    for name in sorted(before.symmetric_difference(after)):
        if name in before or name in parameters:
            message = f"{quotes.name(name)} {'has' if name in before else 'does not have'} 'replace: true' in the"
            _refuse(("parameter_space",), f"{message} experiment's plan, and its points keep that; {_ELSE}", problems)


def _compare_suffixes(old: Version, new: Version, problems: Problems) -> None:
    before, _ = old.plan.grid.values()
    after, _ = new.plan.grid.values()
    known = {listed.run_id_suffix: listed for listed in before if listed.run_id_suffix is not None}
    for index, listed in enumerate(after):
        same = known.get(listed.run_id_suffix) if listed.run_id_suffix is not None else None
        if same is not None and canonical.text(same.overrides) != canonical.text(listed.overrides):
            message = f"the experiment has a run {listed.run_id_suffix!r} with other parameters, and runs don't change"
            _refuse(("runs", index, "run_id_suffix"), f"{message}; give this one a suffix of its own", problems)


def _sampled(space: Space) -> dict[str, Axis]:
    return {axis.dotted: axis for axis in space.axes if isinstance(axis.source, Sampled)}


def _sampling(axis: Axis) -> object:
    assert isinstance(axis.source, Sampled)
    return axis.source.distribution, axis.source.unique
