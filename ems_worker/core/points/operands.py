"""How long the values that expressions name may be, and what it costs to walk them, as `sum` or `in` do."""

from collections.abc import Iterable, Sequence
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import axes, listed, paths, samples

JSON = canonical.JSON

# Of values inside a list or mapping, at any depth, and of letters in a text.
MOST: Final = 1000
# How many letters are compared in the time that one value takes.
_LETTERS: Final = 1000
# How many values are taken apart for names that lead into them: each such name asks for its part of every one.
_MOST_TAKEN_APART: Final = 1_000_000


def weight(value: object) -> int | None:
    """How many values are inside, long texts counting as some; None if expressions don't take so many."""
    inside = letters = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            if len(one) > MOST:
                return None
            letters += len(one)
        elif isinstance(one, list | dict):
            inside += len(one)
            if inside > MOST:
                return None
            waiting += one
            waiting += one.values() if isinstance(one, dict) else ()
    return inside + letters // _LETTERS


class Weights:
    """Weighs what names stand for: the heaviest of all values that one may have."""

    def __init__(self, space: Sequence[axes.Axis], runs: Sequence[listed.Run]) -> None:
        self._space = space
        self._runs = runs
        self._by_run: dict[str, int | None] | None = None
        self._taken_apart = 0

    def of_axis(self, number: int, rest: paths.Path) -> int | None:
        """Of the values of an axis, or what `rest` leads to in them."""
        distribution = self._space[number].distribution
        if distribution is not None:
            return self._heaviest(distribution.values if isinstance(distribution, samples.Choice) else (), rest)
        values = self._space[number].values
        return self._heaviest(values if isinstance(values, list) else (), rest)

    def of_runs(self, name: str, rest: paths.Path) -> int | None:
        """Of what entries of `runs` override a parameter with, or what `rest` leads to in that."""
        if rest:
            return self._heaviest([run.overrides.get(name) for run in self._runs], rest)
        if self._by_run is None:
            self._by_run = {}
            for run in self._runs:
                for each, value in run.overrides.items():
                    self._by_run[each] = heaviest((self._by_run.get(each, 0), weight(value)))
        return self._by_run.get(name, 0)

    def _heaviest(self, values: Sequence[JSON], rest: paths.Path) -> int | None:
        if not rest:
            return heaviest(map(weight, values))
        self._taken_apart += len(values)
        if self._taken_apart > _MOST_TAKEN_APART:
            return None
        return heaviest(weight(paths.get(value, rest)) for value in values)


def heaviest(weights: Iterable[int | None]) -> int | None:
    """The largest weight; None if one is."""
    most = 0
    for each in weights:
        if each is None:
            return None
        most = max(most, each)
    return most
