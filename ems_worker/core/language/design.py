"""`design` and `constraints`: which combinations of the axes' values become points."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, assert_never, cast

from ems_worker.core import canonical
from ems_worker.core.language import checks, duplicates, foreign, quotes, ranges, samples
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.expressions import Expression
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

_LOCATION: Final = ("design",)
_KEYS: Final = ("sampler", "samples", "seed", "refill", "zip", "max_jobs")
_SAMPLERS: Final = ("grid", *samples.SAMPLERS, "adaptive")
MAX_CONSTRAINTS: Final = 100


@dataclass(frozen=True, slots=True)
class Draw:
    """The samples that a design asks for at a location; with `refill` those that satisfy the constraints.

    `numbers` is how many a sampler that draws all at once may draw.
    """

    sampler: samples.Sampler
    count: int
    seed: int
    refill: bool = False
    location: Location = _LOCATION
    numbers: int = samples.MAX_NUMBERS


@dataclass(frozen=True, slots=True)
class Design:
    """How points are chosen, as the plan says at a location. `zips` are groups of axis numbers that vary together.

    Without samples `samples` and `draw` are None; `seed` is that of samples.
    """

    sampler: str = "grid"
    zips: tuple[tuple[int, ...], ...] = ()
    samples: int | None = None
    seed: int = 0
    location: Location = _LOCATION
    draw: Draw | None = None


@dataclass(frozen=True, slots=True)
class Given:
    """What a plan says of the design of a space, at a location.

    `root_seed` is the seed of the samples if the design has none. A design that is `shared` by several spaces samples
    only those that have something to sample. `spaces` is the number of all spaces of the plan.
    """

    data: object
    root_seed: int
    location: Location = _LOCATION
    shared: bool = False
    spaces: int = 1


def max_jobs(data: Mapping[str, object], problems: Problems) -> int | None:
    """The limit that a plan sets itself; None if it has none."""
    spec = data.get(_LOCATION[0])
    if not isinstance(spec, Mapping) or "max_jobs" not in spec:
        return None
    return problems.integer(spec["max_jobs"], (*_LOCATION, "max_jobs"), 1, 2**52)


def parse(given: Given, space: list[Axis], problems: Problems) -> tuple[Design, list[Axis]]:
    """The design of a space, and its axes with their samples drawn and duplicates removed."""
    at = given.location
    spec = problems.mapping(given.data, at, "write {sampler: ..., samples: ...}") or {}
    problems.keys(spec, at, _KEYS, foreign.DESIGN)
    if at != _LOCATION and "max_jobs" in spec:
        message = "this is about all spaces: write it in the design beside parameter_space"
        problems.unknown_key((*at, "max_jobs"), "a space has no 'max_jobs'", message)
    sampler = None
    if "sampler" in spec:
        sampler = problems.choice(spec["sampler"], (*at, "sampler"), _SAMPLERS, foreign.SAMPLERS)
    if sampler == "adaptive":
        problems.add("not_supported_yet", (*at, "sampler"), "sampler 'adaptive' is not supported yet")
        return Design(), space
    count = None
    if "samples" in spec:
        count = problems.integer(spec["samples"], (*at, "samples"), 1, samples.MAX_SAMPLES)
    seed = problems.integer(spec["seed"], (*at, "seed"), 0, 2**63 - 1) if "seed" in spec else given.root_seed
    refill = bool(problems.boolean(spec["refill"], (*at, "refill"))) if "refill" in spec else False
    draw = None
    zips = _Zips(space, given, problems).parse(spec["zip"]) if "zip" in spec else ()
    if "sampler" not in spec:
        sampler = "random" if "samples" in spec else "grid"
    sampled = [number for number, axis in enumerate(space) if isinstance(axis.source, Sampled)]
    if not sampled:
        needs_samples = "samples" in spec or refill or (sampler is not None and sampler != "grid")
        is_reported = problems.within("parameter_space") or problems.within("variables")
        if needs_samples and not given.shared and not is_reported:
            key = next(key for key in ("samples", "sampler", "refill") if key in spec)
            message = "no axis has a 'dist' to draw samples from"
            problems.add("nothing_to_sample", (*at, key), message, on_key=True)
        sampler = count = None
    elif sampler == "grid":
        message = f"a grid has no samples of {quotes.name(space[sampled[0]].name)}, which has a 'dist'"
        location = (*at, "sampler") if "sampler" in spec else space[sampled[0]].location
        problems.add("needs_samples", location, f"{message}: write design: {{sampler: random, samples: ...}}")
    elif "samples" in foreign.meant(foreign.DESIGN, spec):
        pass  # it has another name here, which is reported
    elif "samples" not in spec:
        problems.add("needs_samples", at, "a design with a sampler needs 'samples', their number", on_key=True)
    elif sampler is not None and count is not None and seed is not None:
        numbers = samples.MAX_NUMBERS // given.spaces
        draw = Draw(cast("samples.Sampler", sampler), count, seed, refill, at, numbers)
        space = _drawn(draw, space, sampled, problems)
    seed = given.root_seed if seed is None else seed
    chosen = Design(sampler or "grid", zips, count, seed, at, draw)
    return chosen, _distinct(space, chosen, problems)


def parse_constraints(data: object, location: Location, problems: Problems) -> list[tuple[Expression, Location]]:
    """The constraints at a location of a plan, each with its own."""
    items = problems.sequence(data, location) or ()
    if len(items) > MAX_CONSTRAINTS:
        message = f"{len(items)} constraints; at most {MAX_CONSTRAINTS} are allowed"
        problems.add("out_of_range", location, message)
        return []
    located = [(item, (*location, index)) for index, item in enumerate(items)]
    parsed = [(checks.expression(item, location, problems), location) for item, location in located]
    return [(expression, location) for expression, location in parsed if expression is not None]


def _drawn(draw: Draw, space: list[Axis], sampled: list[int], problems: Problems) -> list[Axis]:
    """The axes with their samples."""
    location = (*draw.location, "samples")
    sources = [space[number].source for number in sampled]
    judged = draw.refill or any(isinstance(source, Sampled) and source.unique for source in sources)
    if (judged or draw.sampler != "random") and draw.count * len(sampled) > draw.numbers:
        drawn = f"{draw.count:,} samples of {len(sampled)} parameters"
        how = f"{draw.sampler} with 'refill' or 'unique'" if judged else draw.sampler
        message = f"{drawn}; {how} draws at most {draw.numbers:,} numbers here"
        problems.add("out_of_range", location, message)
        return space
    if draw.sampler == "sobol" and draw.count & (draw.count - 1):
        power = draw.count.bit_length()
        message = f"sobol samples are balanced only if their number is a power of two, which {draw.count} is not"
        problems.warn("sobol_samples", location, f"{message}; {1 << (power - 1)} and {1 << power} are")
    try:
        columns = samples.columns(draw.sampler, [space[number].dotted for number in sampled], draw.count, draw.seed)
    except samples.MissingExtraError:
        message = f"sampler {draw.sampler!r} needs scipy on the worker's machine: pip install 'ems-worker[design]'"
        problems.add("missing_extra", (*draw.location, "sampler"), message)
        return space
    space = list(space)
    for number, column in zip(sampled, columns, strict=True):
        source = space[number].source
        assert isinstance(source, Sampled)
        values = samples.Column(column, source.distribution)
        space[number] = dataclasses.replace(space[number], source=dataclasses.replace(source, values=values))
    return space


def _distinct(space: list[Axis], chosen: Design, problems: Problems) -> list[Axis]:
    """The axes without repeated values, and zip groups without repeated rows: equal combinations are one point."""
    space = list(space)
    alone = sorted({*range(len(space))}.difference(*chosen.zips))
    together: list[tuple[tuple[int, ...], Location]] = [((number,), ()) for number in alone]
    together += [(group, (*chosen.location, "zip", index)) for index, group in enumerate(chosen.zips)]
    for group, location in together:
        sources = [source for source in (space[number].source for number in group) if isinstance(source, Varied)]
        if len({ranges.size(source.values) for source in sources}) != 1 or len(sources) != len(group):
            continue  # not values that vary, or reported already
        columns = [duplicates.Column(space[number].name, source) for number, source in zip(group, sources, strict=True)]
        distinct = duplicates.dropped(columns, location or columns[0].source.location, problems)
        for number, source, values in zip(group, sources, distinct, strict=True):
            space[number] = dataclasses.replace(space[number], source=dataclasses.replace(source, values=values))
    return space


class _Zips:
    """Parses `zip`: groups of axes that vary together, as axis numbers."""

    def __init__(self, space: Sequence[Axis], given: Given, problems: Problems) -> None:
        self._space = space
        self._location = (*given.location, "zip")
        self._elsewhere = "; spaces with other axes need a design of their own" if given.spaces > 1 else ""
        self._problems = problems
        self._by_name = {axis.dotted: number for number, axis in enumerate(space)}
        self._by_name |= {axis.name: number for number, axis in enumerate(space)}

    def parse(self, data: object) -> tuple[tuple[int, ...], ...]:
        problems = self._problems
        groups: list[tuple[int, ...]] = []
        taken: set[int] = set()
        groups_given = problems.sequence(data, self._location, "write [[name, name, ...], ...]") or ()
        if groups_given and all(isinstance(given, str) for given in groups_given):
            message = f"zip is a list of groups: write {quotes.brief([groups_given])} to zip these"
            problems.add("zip_form", self._location, message)
            return ()
        for at, given in enumerate(groups_given):
            members: list[int] = []
            here = (*self._location, at)
            for index, item in enumerate(problems.sequence(given, here) or ()):
                number = self._member(item, (*here, index))
                if number is not None and number in taken:
                    message = f"{quotes.brief(item)} is zipped already: an axis is in one group, once"
                    problems.add("duplicate", (*here, index), message)
                elif number is not None:
                    members.append(number)
                    taken.add(number)
            sizes = {number: ranges.size(self._space[number].values) for number in members}
            if isinstance(given, list) and len(given) < 2:
                problems.add("zip_length", here, "a zip group has at least two axes")
            elif len({*sizes.values()}) > 1:
                numbers = ", ".join(f"{self._space[number].name} has {size}" for number, size in sizes.items())
                problems.add("zip_length", here, f"zipped axes need the same number of values: {numbers}")
            groups.append(tuple(members))
        return tuple(groups)

    def _member(self, item: object, location: Location) -> int | None:
        problems = self._problems
        name = problems.text(item, location)
        if name is None:
            return None
        number = self._by_name.get(name)
        if number is None:
            suggestion = problems.nearest(name, self._by_name)
            message = f"{quotes.name(name)} is not an axis of the parameter_space{self._elsewhere}"
            problems.add("unknown_name", location, message, suggestion)
            return None
        match source := self._space[number].source:
            case None:
                return None
            case Varied():
                return number
            case Constant() | Sampled() | Derived():
                message = f"{quotes.name(name)} can't be zipped: only axes with a list or range of values can"
                problems.add("zip_form", location, message)
                return None
            case _:
                assert_never(source)
