"""Values of another kind than the base configuration's: most often a slip of the pen, and so a warning."""

from collections.abc import Callable, Sequence
from types import NoneType
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import problems

JSON = canonical.JSON

# By the type of what the base configuration has: which types are of its kind, and what to do about others. A null is of
# no kind, on either side, nor are lists and mappings there.
_OF_ITS_KIND: Final[dict[type, frozenset[type]]] = {
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


def at(place: problems.Place) -> Callable[[int], problems.Place]:
    """For `judge`: all values come from there."""
    return lambda _: place


def judge(
    there: JSON,
    values: Sequence[JSON],
    place: Callable[[int], problems.Place],
    odd: problems.Problems,
    *,
    listed: bool = True,
) -> bool:
    """Warns of the first value that is of another kind than what the base configuration has there; whether one is.

    `place` is where the plan has the value of that number. Values that are not `listed` in the plan are some of those
    that it gives.
    """
    fine = _OF_ITS_KIND.get(type(there))
    if fine is None or fine.issuperset(map(type, values)):
        return False
    wrong = [index for index, value in enumerate(values) if type(value) not in fine]
    value = values[wrong[0]]
    more = f" (and {len(wrong) - 1} more)" if listed and len(wrong) > 1 else ""
    is_this = f"this {'is' if listed else 'gives'} {problems.kind(value)}"
    what, remedy = problems.kind(there), _REMEDIES[type(there)] if listed else "see whether the model takes that"
    if type(there) is int and isinstance(value, float):
        what = f"the whole number {problems.brief(there)}"
        remedy = f"if fractions are meant, write {problems.brief(there)}.0 there"
    message = f"the base configuration has {what} here, and {is_this}: {remedy}{more}"
    odd.add("other_kind", place(wrong[0]), message)
    return True
