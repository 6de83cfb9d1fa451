"""Small edits of a plan's document, for `extend`: more replicates, more samples, more values of an axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, assert_never

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.language import aliases, paths, quotes, ranges
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.problems import Problems
from ems_worker.core.points.plan import Plan

JSON = canonical.JSON

_REPLICATES: Final = "num_replicates_per_run"
_SAMPLES: Final = ("design", "samples")
# A range of at most this many values is written as a list, so that it can take more.
MAX_LISTED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Edits:
    """More replicates, more samples, and more values of axes, by the path or name of each; None: as many as now."""

    replicates: int | None = None
    samples: int | None = None
    add: Mapping[str, Sequence[JSON]] = field(default_factory=dict)


def edited(document: Mapping[str, object], plan: Plan, edits: Edits) -> dict[str, Any]:
    """The document of a plan with these edits. `plan` is what the document was parsed to.

    The document itself isn't changed. Whether the result is a valid plan is left to parsing it. Raises PlanRejected.
    """
    problems = Problems()
    result = aliases.expanded(paths.copied(dict(document)))
    if edits.replicates is not None:
        _set_replicates(result, plan, edits.replicates, problems)
    if edits.samples is not None:
        _set_samples(result, plan, edits.samples, problems)
    for name, values in edits.add.items():
        _add_values(result, plan, name, values=values, problems=problems)
    if len(problems):
        raise errors.PlanRejected(problems.collected())
    return result


def _set_replicates(result: dict[str, Any], plan: Plan, replicates: int, problems: Problems) -> None:
    if replicates < plan.replicates:
        message = f"the plan has {plan.replicates:,} replicates already, and extend takes none away"
        problems.add("fewer_replicates", (_REPLICATES,), f"{message}; exclude or cancel them with a 'where' instead")
    else:
        result[_REPLICATES] = replicates


def _set_samples(result: dict[str, Any], plan: Plan, samples: int, problems: Problems) -> None:
    design = result.get("design")
    if not isinstance(design, dict) or "samples" not in design:
        what = "the plan has no samples: none of its axes has a 'dist'"
        if any(space.design.samples for space in plan.spaces):
            what = "spaces of the plan have samples of their own; send the whole plan"
        problems.add("nothing_to_sample", _SAMPLES, what)
    elif samples < design["samples"]:
        message = f"the plan has {design['samples']:,} samples already; to take some away, send the whole plan"
        problems.add("fewer_samples", _SAMPLES, f"{message}, with 'withdraw'")
    else:
        design["samples"] = samples


def _add_values(result: dict[str, Any], plan: Plan, name: str, *, values: Sequence[JSON], problems: Problems) -> None:
    """Appends values to the axis with this path or name."""
    axes = [axis for space in plan.spaces for axis in space.axes]
    found = {axis.location: axis for axis in axes if name in (axis.dotted, axis.name)}
    axis = next(iter(found.values()), None)
    if axis is None:
        suggestion = problems.nearest(name, {text for axis in axes for text in (axis.dotted, axis.name)})
        message = f"{quotes.name(name)} is not an axis of the plan; to vary another path, send the whole plan"
        problems.add("unknown_name", ("add", name), message, suggestion, on_key=True)
        return
    if len(found) > 1:
        message = f"{quotes.name(name)} varies in several spaces of the plan; send the whole plan"
        problems.add("not_a_list", ("add", name), message, on_key=True)
        return
    match axis.source:
        case Varied(values=existing, location=location):
            size = ranges.size(existing)
            if isinstance(existing, ranges.Spaced) and size > MAX_LISTED:
                message = f"{quotes.name(name)} is a range of {size:,} values, too many to list; send the whole plan"
                problems.add("not_a_list", ("add", name), message, on_key=True)
                return
            _append(result, plan, axis, values=values, at=location)
        case Sampled():
            message = f"{quotes.name(name)} is sampled, and takes no single values: raise 'samples' instead"
            problems.add("not_a_list", ("add", name), message, on_key=True)
        case Constant() | Derived() | None:
            message = f"{quotes.name(name)} has no list of values that could take more; send the whole plan"
            problems.add("not_a_list", ("add", name), message, on_key=True)
        case _:
            assert_never(axis.source)


def _append(result: dict[str, Any], plan: Plan, axis: Axis, *, values: Sequence[JSON], at: quotes.Location) -> None:
    assert isinstance(axis.source, Varied)
    holder: Any = result
    for step in at[:-1]:
        holder = holder[step]
    listed = holder[at[-1]]
    # In a zip group each value belongs to one of another axis, so that none is left out.
    zipped = (space.axes[number] for space in plan.spaces for group in space.design.zips for number in group)
    together = any(other.location == axis.location for other in zipped)
    new: list[JSON] = []
    for value in values:
        if together or not any(_same(value, other) for other in chain(axis.source.values, new)):
            new.append(value)
    if axis.source.parts:
        listed += [new] if new else []
    elif isinstance(listed, list):
        listed += new
    else:  # a range
        del holder[at[-1]]
        holder["values"] = [*axis.source.values, *new]


def _same(value: JSON, other: JSON) -> bool:
    """Whether an axis that has one value needs the other: here 1 and 1.0 are the same, and true isn't 1."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)
