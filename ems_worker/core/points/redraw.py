"""Draws samples until enough of them satisfy the constraints (`refill`), and have no value twice (`unique`)."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from ems_worker.core.language import duplicates, quantiles, quotes, ranges, samples
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.design import Draw
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.problems import Problems
from ems_worker.core.points import operands
from ems_worker.core.points.names import Condition, Names
from ems_worker.core.points.scope import Scope

# How often each sample is drawn on average, and all samples together, before too few of them satisfy.
MAX_DRAWS: Final = 100
LEAST_DRAWS: Final = 10_000
# The steps of drawing a coordinate, and of evaluating an expression besides its size.
_COORDINATE: Final = 12
_EVALUATION: Final = 12
# The values inside a list that are walked in the time of a step.
_WALKED_PER_STEP: Final = 10
_NOT_LISTED: Final = ListedPoint()


def redrawn(names: Names, draw: Draw | None, steps: int, problems: Problems) -> Names:
    """The names of a plan with their final samples, if some that were drawn have to be replaced.

    A sample is replaced by the next one of the same sequence, so that the samples only depend on the plan. `steps` is
    how much work that may take. Reports a problem if too few satisfy.
    """
    sampled = {number: axis.source for number, axis in enumerate(names.axes) if isinstance(axis.source, Sampled)}
    if draw is None:
        return names
    dependencies = _Dependencies(names)
    judged = [each for each in names.constraints if dependencies.sampled([each])] if draw.refill else []
    if draw.refill and not judged:
        message = "no constraint is about sampled parameters alone, so that no sample is replaced"
        problems.warn("nothing_to_refill", (*draw.location, "refill"), message, on_key=True)
    unique = [number for number, source in sampled.items() if source.unique]
    for number in unique:
        size = quantiles.size(sampled[number].distribution)
        if size is not None and size < draw.count:
            message = (
                f"{quotes.name(names.axes[number].name)} has {size:,} values, which are too few for {draw.count:,}"
            )
            location = (*names.axes[number].location, "unique")
            problems.add("too_few_samples", location, f"{message} samples without a repetition")
    if len(problems) or not (judged or unique):
        return names
    return _Redraw(names, draw, sampled, judged).run(steps // dependencies.cost(judged, len(sampled)), problems)


class _Dependencies:
    """Which axes the values of expressions depend on."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._known: dict[int, frozenset[int] | None] = {}
        self._sizes: list[int] = []

    def sampled(self, conditions: Iterable[Condition]) -> frozenset[int] | None:
        """The sampled axes that expressions depend on; None if they depend on others, or on entries of `runs`."""
        found: set[int] = set()
        for condition in conditions:
            for source in condition.sources:
                inner = None if source.listed else frozenset() if source.axis is None else self._of(source.axis)
                if inner is None:
                    return None
                found |= inner
        return frozenset(found)

    def cost(self, judged: Sequence[Condition], sampled: int) -> int:
        """The steps of judging a sample."""
        return sampled * _COORDINATE + sum(map(_cost, judged)) + sum(self._sizes)

    def _of(self, number: int) -> frozenset[int] | None:
        if number not in self._known:
            self._known[number] = self._find(number)
        return self._known[number]

    def _find(self, number: int) -> frozenset[int] | None:
        source = self._names.axes[number].source
        if isinstance(source, Varied) and ranges.size(source.values) > 1:
            return None
        assert isinstance(source, Varied | Constant | Derived | Sampled)
        given = (self._names.whens.get(number), self._names.derivations.get(number))
        conditions = [condition for condition in given if condition is not None]
        self._sizes += map(_cost, conditions)
        inner = self.sampled(conditions)
        return inner | {number} if inner is not None and isinstance(source, Sampled) else inner


class _Redraw:
    """Draws samples until enough are accepted."""

    def __init__(self, names: Names, draw: Draw, sampled: dict[int, Sampled], judged: Sequence[Condition]) -> None:
        self._names = names
        self._draw = draw
        self._sampled = sampled
        self._judged = judged
        self._dimension_of = dict.fromkeys(sampled, 0)
        self._failures = Problems()
        # The digests of the values that accepted samples have, of each axis that must not repeat any.
        self._seen: dict[int, set[int]] = {number: set() for number, source in sampled.items() if source.unique}

    def run(self, most: int, problems: Problems) -> Names:
        """The names with the samples, of which at most so many are drawn."""
        count, is_random = self._draw.count, self._draw.sampler == "random"
        most = min(most, max(MAX_DRAWS * count, LEAST_DRAWS))
        if not is_random:
            most = min(most, self._draw.numbers // len(self._sampled))
        rows: list[int] = []
        # Random samples are computed when they are used; the others are all drawn at once.
        drawn, last = 0, -(-most // count)
        times = last if is_random else 1
        while drawn < most:
            candidates, columns = self._candidates(times)
            for row in range(drawn, min(times * count, most)):
                drawn = row + 1
                if self._accepts(candidates, row):
                    rows.append(row)
                    if len(rows) == count:
                        return self._chosen(columns, rows)
            times = min(2 * times, last)
        what, remedy = "satisfy the constraints", "make the distributions fit the constraints"
        if self._seen:
            what = f"{what} and differ" if self._judged else "differ"
            remedy = remedy if self._judged else "allow more values"
        message = (
            f"only {len(rows):,} of {drawn:,} samples {what}, and {count:,} are needed: ask for fewer, or {remedy}"
        )
        problems.add("too_few_samples", (*self._draw.location, "samples"), message)
        return self._names

    def _candidates(self, times: int) -> tuple[Names, Sequence[Sequence[float]]]:
        """The names with so many times the samples, and the coordinates of these."""
        draw = self._draw
        axes = [self._names.axes[number].dotted for number in self._sampled]
        columns = samples.columns(draw.sampler, axes, draw.count, draw.seed, times=times)
        return self._with(columns), columns

    def _with(self, columns: Sequence[Sequence[float]]) -> Names:
        """The names with samples at these coordinates."""
        axes, values, converted = list(self._names.axes), list(self._names.values), list(self._names.operands)
        for (number, source), column in zip(self._sampled.items(), columns, strict=True):
            values[number] = samples.Column(column, source.distribution)
            converted[number] = operands.Operands(values[number])
            axes[number] = replace(axes[number], source=replace(source, values=values[number]))
        return replace(self._names, axes=tuple(axes), values=tuple(values), operands=tuple(converted))

    def _chosen(self, columns: Sequence[Sequence[float]], rows: Sequence[int]) -> Names:
        return self._with([array("d", [column[row] for row in rows]) for column in columns])

    def _accepts(self, candidates: Names, row: int) -> bool:
        if not self._satisfies(candidates, row):
            return False
        digests = {number: duplicates.digest([candidates.values[number]], row) for number in self._seen}
        if any(digest in self._seen[number] for number, digest in digests.items()):
            return False
        for number, digest in digests.items():
            self._seen[number].add(digest)
        return True

    def _satisfies(self, candidates: Names, row: int) -> bool:
        """Whether no constraint is false. One without a value is an error of the plan, unless another one is false."""
        scope = Scope(candidates, self._dimension_of, [row], listed=_NOT_LISTED, problems=self._failures)
        false = [each for each in self._judged if not scope.holds(each, if_missing=True)]
        if len(self._failures):
            self._failures = Problems()
            return not any(self._is_false(each, candidates, row) for each in false)
        return not false

    def _is_false(self, condition: Condition, candidates: Names, row: int) -> bool:
        """Whether a constraint that doesn't hold has a value, and so has all that it depends on."""
        failures = Problems()
        scope = Scope(candidates, self._dimension_of, [row], listed=_NOT_LISTED, problems=failures)
        return not scope.holds(condition, if_missing=True) and not len(failures)


def _cost(condition: Condition) -> int:
    expression = condition.expression
    inside = sum(uses * source.weight for uses, source in zip(expression.uses, condition.sources, strict=True))
    return _EVALUATION + expression.size + inside // _WALKED_PER_STEP
