"""Warnings for values of another type than the base configuration's: most of these values are mistakes."""

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Final, assert_never

from ems_worker.core import canonical
from ems_worker.core.language import quotes, ranges
from ems_worker.core.language.axis_values import AxisValues, Constant, Derived, Sampled, Varied
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quantiles import Choice
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

# The types that are accepted without a warning, by the type of the base configuration's value. A null is accepted
# everywhere, and a null, list or mapping of the base configuration accepts everything.
_ACCEPTED: Final[dict[type, frozenset[type]]] = {
    bool: frozenset({bool, NoneType}),
    int: frozenset({int, NoneType}),
    float: frozenset({int, float, NoneType}),
    str: frozenset({str, NoneType}),
}
_REMEDIES: Final = {
    bool: "write true or false",
    int: "write a number, in digits and without quotes",
    float: "write a number, in digits and without quotes",
    str: "if text is meant, put it in quotes",
}


def at(location: Location) -> Callable[[int], Location]:
    """The `locate` argument of `judge` if all values have the same location."""
    return lambda _: location


def judge(
    existing: JSON,
    values: Sequence[JSON],
    locate: Callable[[int], Location],
    problems: Problems,
    *,
    listed: bool = True,
) -> bool:
    """Warns about the first value whose type the base configuration's value doesn't accept; True if there is one.

    `locate` gives the location of a value by its index. Values that are not `listed` in the plan are examples of those
    that an axis gives.
    """
    accepted = _ACCEPTED.get(type(existing))
    if accepted is None or accepted.issuperset(map(type, values)):
        return False
    wrong = [index for index, value in enumerate(values) if type(value) not in accepted]
    value = values[wrong[0]]
    more = f" (and {len(wrong) - 1} more)" if listed and len(wrong) > 1 else ""
    is_this = f"this {'is' if listed else 'gives'} {quotes.describe(value)}"
    expected = quotes.describe(existing)
    remedy = _REMEDIES[type(existing)] if listed else "check that the model accepts that"
    if type(existing) is int and isinstance(value, float):
        expected = f"the whole number {quotes.brief(existing)}"
        remedy = f"if fractions are meant, write {quotes.brief(existing)}.0 there"
    message = f"the base configuration has {expected} here, and {is_this}: {remedy}{more}"
    problems.warn("other_kind", locate(wrong[0]), message)
    return True


def checked(source: AxisValues) -> tuple[Sequence[JSON], Callable[[int], Location], bool]:
    """The values of an axis to check, the location of each by its index, and whether the plan lists them.

    All values of a range or a distribution have the same type, so that one of them is enough.
    """
    match source:
        case Varied(values=ranges.Spaced() as values):
            return [values[values.size // 2]], at(source.location), False
        case Varied():
            return source.values, source.at, True
        case Constant():
            return source.values, at(source.location), True
        case Sampled(distribution=Choice()):
            return source.choices, lambda index: (*source.location, index), True
        case Sampled():
            return [source.distribution(0.5)], at(source.location), False
        case Derived():  # checked at points, but never a list or mapping
            return (), at(()), False
        case _:
            assert_never(source)
