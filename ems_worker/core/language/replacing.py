"""`replace: true`: without it, only a mapping may take the place of a mapping, and only a list that of a list."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

_VALUE: Final = "value"
_REPLACE: Final = "replace"
# What to write, by the type of the base configuration's value.
_OF_AXIS: Final[Mapping[type, str]] = {
    dict: "name a path inside it, or add 'replace: true' to the axis ({values: [...], replace: true})",
    list: (
        "for a list that is the same at all points write {value: [...]}, for several lists [[...], [...]], and for "
        "single values in place of the list {values: [...], replace: true}"
    ),
}
_OF_OVERRIDE: Final[Mapping[type, str]] = {
    dict: "name a path inside it, or write {value: ..., replace: true}",
    list: "write a list, or {value: ..., replace: true}",
}


def check_axis(existing: JSON, values: Sequence[JSON], locate: Callable[[int], Location], problems: Problems) -> bool:
    """Reports the first value of an axis that would replace a mapping or list; True if there is none."""
    expected = type(existing)
    if not isinstance(existing, dict | list) or {expected}.issuperset(map(type, values)):
        return True
    index, value = next((index, value) for index, value in enumerate(values) if type(value) is not expected)
    _report(existing, quotes.describe(value), locate(index), problems, remedies=_OF_AXIS)
    return False


def check_derived(existing: JSON, location: Location, problems: Problems) -> bool:
    """Reports an expression that would replace a mapping or list: its results are neither. True if it doesn't."""
    if isinstance(existing, dict | list):
        _report(existing, "the result of an expression", location, problems, remedies=_OF_AXIS)
    return not isinstance(existing, dict | list)


def refuse_merging(location: Location, problems: Problems) -> None:
    """Reports mappings that would merge into those of several elements, which may have other keys each."""
    message = "values that are mappings don't merge into those of every element"
    problems.add("needs_replace", location, f"{message}: {_OF_AXIS[dict]}")


def check_override(existing: JSON, value: JSON, location: Location, problems: Problems) -> bool:
    """Reports a value of `runs` that would replace a mapping or list, or change nothing; True if it does neither."""
    if isinstance(existing, dict) and existing and value == {}:
        message = "an empty mapping merges nothing into the one of the base configuration"
        problems.add("needs_replace", location, f"{message}: to empty that, write {{value: {{}}, replace: true}}")
        return False
    if not isinstance(existing, dict | list) or type(value) is type(existing):
        return True
    _report(existing, quotes.describe(value), location, problems, remedies=_OF_OVERRIDE)
    return False


def _report(
    existing: JSON, found: str, location: Location, problems: Problems, *, remedies: Mapping[type, str]
) -> None:
    message = f"the base configuration has {quotes.describe(existing)} here, and {found} would replace all of it"
    problems.add("needs_replace", location, f"{message}: {remedies[type(existing)]}")


def is_override(value: Mapping[str, object], existing: JSON) -> bool:
    """Whether a mapping in `runs` is `{value: ..., replace: true}`, and not nested paths of these names."""
    mine = value.keys() == {_VALUE, _REPLACE} and value[_REPLACE] is True
    return mine and not (isinstance(existing, dict) and not existing.keys().isdisjoint(value))
