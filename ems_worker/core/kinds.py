"""Values of another kind than the base configuration's: most often a slip of the pen, and so a warning."""

from collections.abc import Iterable

from ems_worker.core import canonical, problems

JSON = canonical.JSON
Place = problems.Place


def judge(there: JSON, given: Iterable[tuple[Place, JSON]], odd: problems.Problems, *, listed: bool = True) -> bool:
    """Warns of the first value that is of another kind than what the base configuration has there; whether one is.

    A null is of no kind, nor are lists and mappings there. Values that are not `listed` in the plan are some of those
    that it gives.
    """
    wrong = [(place, value) for place, value in given if _differs(there, value)]
    if wrong and not odd.full:
        place, value = wrong[0]
        more = f" (and {len(wrong) - 1} more)" if listed and len(wrong) > 1 else ""
        is_this = f"this {'is' if listed else 'gives'} {problems.kind(value)}"
        what, remedy = problems.kind(there), _REMEDIES[type(there)] if listed else "see whether the model takes that"
        if _is_number(there) and isinstance(value, float):
            what = f"the whole number {problems.brief(there)}"
            remedy = f"if fractions are meant, write {problems.brief(there)}.0 there"
        odd.add("other_kind", place, f"the base configuration has {what} here, and {is_this}: {remedy}{more}")
    return bool(wrong)


_REMEDIES = {
    bool: "write true or false",
    int: "write a number, in digits and without quotes",
    float: "write a number, in digits and without quotes",
    str: "if text is meant, put it in quotes",
}


def _differs(there: JSON, value: JSON) -> bool:
    if value is None or type(there) not in _REMEDIES:
        return False
    if _is_number(there) and _is_number(value):
        return isinstance(there, int) and isinstance(value, float)
    return type(there) is not type(value)


def _is_number(value: JSON) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
