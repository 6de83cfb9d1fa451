"""The values that expressions name: as operands, and their size with its limit and what it costs to walk them."""

from collections.abc import Iterable, Sequence
from typing import Final, assert_never, overload

from ems_worker.core import canonical
from ems_worker.core.language import decimals, paths, ranges, weights
from ems_worker.core.language.axes import Axis
from ems_worker.core.language.axis_values import Constant, Derived, Sampled, Varied
from ems_worker.core.language.listed import ListedPoint
from ems_worker.core.language.quantiles import Choice

JSON = canonical.JSON

# The number of values that names may lead into: each such name needs its part of every value of an axis.
MAX_UNPACKED: Final = 1_000_000
# Of a longer axis, operands are not kept.
_MAX_KEPT: Final = 10_000


class Operands(Sequence[decimals.Operand]):
    """The values of an axis as expressions calculate with them, each converted when it is first used."""

    __slots__ = ("_known", "_values")

    def __init__(self, values: Sequence[JSON]) -> None:
        self._values = values
        self._known: dict[int, decimals.Operand] = {}

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> decimals.Operand: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[decimals.Operand]: ...
    def __getitem__(self, index: int | slice) -> decimals.Operand | Sequence[decimals.Operand]:
        if isinstance(index, slice):
            return [self[number] for number in range(ranges.size(self._values))[index]]
        if index in self._known:
            return self._known[index]
        operand = decimals.exact(self._values[index])
        if ranges.size(self._values) <= _MAX_KEPT:
            self._known[index] = operand
        return operand


class Weights:
    """Weighs what names refer to: the largest weight of all values that a name can have."""

    def __init__(self, space: Sequence[Axis], listed: Sequence[ListedPoint]) -> None:
        self._space = space
        self._listed = listed
        self._by_parameter: dict[str, int | None] | None = None
        self._unpacked = 0

    def of_axis(self, number: int, rest: paths.Path) -> int | None:
        """The weight of the values of an axis, or of what `rest` leads to in them."""
        values: Sequence[JSON] = ()
        match source := self._space[number].source:
            case Sampled(distribution=Choice() as choice):
                values = choice.values
            case Varied() | Constant():
                values = source.values
            case Sampled() | Derived() | None:
                pass  # numbers, and results of expressions, which are never lists or mappings
            case _:
                assert_never(source)
        # The values of a range are numbers.
        return self._heaviest(values if isinstance(values, list) else (), rest)

    def of_listed(self, name: str, rest: paths.Path) -> int | None:
        """The weight of the values that entries of `runs` give a parameter, or of what `rest` leads to in them."""
        if rest:
            return self._heaviest([point.overrides.get(name) for point in self._listed], rest)
        if self._by_parameter is None:
            self._by_parameter = {}
            for point in self._listed:
                for parameter, value in point.overrides.items():
                    largest = heaviest((self._by_parameter.get(parameter, 0), weights.of(value)))
                    self._by_parameter[parameter] = largest
        return self._by_parameter.get(name, 0)

    def _heaviest(self, values: Sequence[JSON], rest: paths.Path) -> int | None:
        if not rest:
            return heaviest(map(weights.of, values))
        self._unpacked += len(values)
        if self._unpacked > MAX_UNPACKED:
            return None
        return heaviest(weights.of(paths.get(value, rest)) for value in values)


def heaviest(weights: Iterable[int | None]) -> int | None:
    """The largest weight; None if any of them is None."""
    largest = 0
    for each in weights:
        if each is None:
            return None
        largest = max(largest, each)
    return largest
