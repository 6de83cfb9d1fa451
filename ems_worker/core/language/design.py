"""`design` and `constraints`: which combinations of the axes' values become points."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import axes, axis_values, duplicates, expressions, problems, ranges, samples

JSON = canonical.JSON

_PLACE: Final = ("design",)
_KEYS: Final = ("sampler", "samples", "seed", "zip", "max_jobs")
_SAMPLERS: Final = ("grid", *samples.SAMPLERS, "adaptive")
MOST_CONSTRAINTS: Final = 100


@dataclass(frozen=True, slots=True)
class Design:
    """How points are chosen. `zips` are groups of axis numbers that vary together; None is no limit of its own."""

    sampler: str = "grid"
    zips: tuple[tuple[int, ...], ...] = ()
    max_jobs: int | None = None


def read(
    data: object,
    space: list[axes.Axis],
    root: int,
    found: problems.Problems,
    odd: problems.Problems,
) -> tuple[Design, list[axes.Axis]]:
    """The `design` of a plan, and its axes: sampled ones with their values, others with each value, or row, once.

    `root` seeds what has no seed.
    """
    spec = found.mapping(data, _PLACE) or {}
    found.keys(spec, _PLACE, _KEYS)
    sampler = found.choice(spec["sampler"], (*_PLACE, "sampler"), _SAMPLERS) if "sampler" in spec else None
    if sampler == "adaptive":
        found.add("not_supported_yet", (*_PLACE, "sampler"), "sampler 'adaptive' is not supported yet")
        return Design(), space
    count = None
    if "samples" in spec:
        count = found.integer(spec["samples"], (*_PLACE, "samples"), 1, samples.MOST_SAMPLES)
    seed = found.integer(spec["seed"], (*_PLACE, "seed"), 0, 2**63 - 1) if "seed" in spec else root
    limit = None
    if "max_jobs" in spec:
        limit = found.integer(spec["max_jobs"], (*_PLACE, "max_jobs"), 1, 2**52)
    zips = _zips(spec["zip"], space, found) if "zip" in spec else ()
    if "sampler" not in spec:
        sampler = "random" if "samples" in spec else "grid"
    sampled = [number for number, axis in enumerate(space) if axis.distribution is not None]
    if not sampled:
        wanted = "samples" in spec or (sampler is not None and sampler != "grid")
        if wanted and not any(axis.broken for axis in space):
            key = "samples" if "samples" in spec else "sampler"
            found.add("nothing_to_sample", (*_PLACE, key), "no axis has a 'dist' to take samples of", on_key=True)
    elif sampler == "grid":
        message = f"a grid has no samples of {space[sampled[0]].name!r}, which has a 'dist'"
        place = (*_PLACE, "sampler") if "sampler" in spec else space[sampled[0]].place
        found.add("needs_samples", place, f"{message}: say design: {{sampler: random, samples: ...}}")
    elif "samples" not in spec:
        found.add("needs_samples", _PLACE, "design needs the number of 'samples' to take", on_key=True)
    elif sampler is not None and count is not None and seed is not None:
        space = _sampled(cast("samples.Sampler", sampler), space, sampled, count, seed, found, odd)
    return Design(sampler or "grid", zips, limit), _distinct(space, zips, found, odd)


def read_constraints(data: object, found: problems.Problems) -> list[tuple[expressions.Expression, problems.Place]]:
    """The `constraints` of a plan, each with its place."""
    items = found.sequence(data, ("constraints",)) or ()
    if len(items) > MOST_CONSTRAINTS:
        found.add("out_of_range", ("constraints",), f"{len(items)} constraints; at most {MOST_CONSTRAINTS} are allowed")
        return []
    read_items = [
        (axis_values.expression(item, ("constraints", at), found), ("constraints", at)) for at, item in enumerate(items)
    ]
    return [(expression, place) for expression, place in read_items if expression is not None]


def _sampled(
    sampler: samples.Sampler,
    space: list[axes.Axis],
    sampled: list[int],
    count: int,
    seed: int,
    found: problems.Problems,
    odd: problems.Problems,
) -> list[axes.Axis]:
    place = (*_PLACE, "samples")
    if sampler != "random" and count * len(sampled) > samples.MOST_NUMBERS:
        message = (
            f"{count:,} samples of {len(sampled)} parameters; {sampler} draws {samples.MOST_NUMBERS:,} numbers at most"
        )
        found.add("out_of_range", place, message)
        return space
    if sampler == "sobol" and count & (count - 1):
        message = f"sobol samples are balanced in powers of two, and {count} is none"
        odd.add("sobol_samples", place, f"{message}: {1 << (count.bit_length() - 1)} or {1 << count.bit_length()} are")
    try:
        columns = samples.columns(sampler, [space[number].dotted for number in sampled], count, seed)
    except samples.MissingExtraError:
        message = f"sampler {sampler!r} needs scipy on the worker's machine: pip install 'ems-worker[design]'"
        found.add("missing_extra", (*_PLACE, "sampler"), message)
        return space
    space = list(space)
    for number, column in zip(sampled, columns, strict=True):
        distribution = space[number].distribution
        assert distribution is not None
        space[number] = dataclasses.replace(space[number], values=samples.Column(column, distribution))
    return space


def _distinct(
    space: list[axes.Axis],
    zips: tuple[tuple[int, ...], ...],
    found: problems.Problems,
    odd: problems.Problems,
) -> list[axes.Axis]:
    """The axes without values, or rows of a zip group, that are there already: equal combinations are one point."""
    space = list(space)
    alone = sorted({*range(len(space))}.difference(*zips))
    together: list[tuple[tuple[int, ...], problems.Place]] = [
        *(((number,), space[number].values_place) for number in alone if space[number].values_place),
        *((group, (*_PLACE, "zip", at)) for at, group in enumerate(zips)),
    ]
    for group, place in together:
        columns = [duplicates.Column(axis.name, axis.values, axis.values_place) for axis in (space[n] for n in group)]
        if len({ranges.size(column.values) for column in columns}) != 1:
            continue  # it was reported
        for number, values in zip(group, duplicates.without(columns, place, found, odd), strict=True):
            space[number] = dataclasses.replace(space[number], values=values)
    return space


def _zips(data: object, space: Sequence[axes.Axis], found: problems.Problems) -> tuple[tuple[int, ...], ...]:
    place = (*_PLACE, "zip")
    by_name = {axis.dotted: number for number, axis in enumerate(space)}
    by_name |= {axis.name: number for number, axis in enumerate(space)}
    groups: list[tuple[int, ...]] = []
    taken: set[int] = set()
    for at, given in enumerate(found.sequence(data, place) or ()):
        members: list[int] = []
        for index, item in enumerate(found.sequence(given, (*place, at)) or ()):
            number = _member(item, (*place, at, index), by_name, space, found)
            if number is not None and number in taken:
                message = f"{problems.brief(item)} is zipped already: an axis is in one group, once"
                found.add("duplicate", (*place, at, index), message)
            elif number is not None:
                members.append(number)
                taken.add(number)
        sizes = [f"{space[number].name} has {ranges.size(space[number].values)}" for number in members]
        if isinstance(given, list) and len(given) < 2:
            found.add("zip_length", (*place, at), "a zip group has at least two axes")
        elif len({ranges.size(space[number].values) for number in members}) > 1:
            message = f"zipped axes need equally many values: {', '.join(sizes)}"
            found.add("zip_length", (*place, at), message)
        groups.append(tuple(members))
    return tuple(groups)


def _member(
    item: object,
    place: problems.Place,
    by_name: dict[str, int],
    space: Sequence[axes.Axis],
    found: problems.Problems,
) -> int | None:
    name = found.text(item, place)
    if name is None:
        return None
    number = by_name.get(name)
    if number is None:
        suggestion = found.nearest(name, by_name)
        found.add("unknown_name", place, f"{problems.brief(name)} is no axis of the parameter_space", suggestion)
        return None
    axis = space[number]
    if axis.broken:
        return None
    if axis.constant or axis.distribution is not None or axis.expression is not None:
        found.add("zip_form", place, f"{name!r} has no values to zip: lists and ranges have")
        return None
    return number
