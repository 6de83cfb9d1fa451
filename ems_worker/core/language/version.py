"""The version of the plan language, and what later versions read in another way.

The version is recorded with each accepted plan. New keys need no new version, nor do plans that a worker refuses from
now on. A change of the points that an accepted plan means does, with an entry in CHANGES: the points of one experiment
never follow two versions. If expressions compute in another way, EXPRESSIONS has an entry too, for the conditions of
requests.
"""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import quotes
from ems_worker.core.language.quotes import Location

# Raise it here, together with docs/plan-language.md, "Versions of the language".
VERSION: Final = 2


def changed(plan: Mapping[str, canonical.JSON], since: int) -> str | None:
    """The path of something that may mean other points in this version than in `since`; None if nothing does.

    `plan` is a valid plan as it was read. Its points in an earlier version aren't computed, so this may be something
    that means the same in the end.
    """
    found = (location for version in range(since + 1, VERSION + 1) for location in CHANGES[version](plan))
    first = next(found, None)
    return None if first is None else quotes.dotted(first)


def changes_expressions(since: int) -> bool:
    """Whether an expression may have another value in this version than in `since`."""
    return any(since < version <= VERSION for version in EXPRESSIONS)


def _version_2(plan: Mapping[str, canonical.JSON]) -> Iterator[Location]:
    """Expressions, which compute in decimals, and ranges by a step, which reach their stop if they nearly do."""
    if plan.get("constraints"):
        yield ("constraints",)
    waiting: list[tuple[Location, canonical.JSON]] = [(("parameter_space",), plan.get("parameter_space"))]
    while waiting:
        location, value = waiting.pop()
        if not isinstance(value, Mapping):
            continue
        yield from ((*location, key) for key in ("expr", "when") if isinstance(value.get(key), str))
        if location[-1] == "range" and _misses_stop(value):
            yield location
        waiting += [((*location, key), inner) for key, inner in value.items()]


def _misses_stop(spaced: Mapping[str, canonical.JSON]) -> bool:
    """Whether a range has a step that doesn't meet its stop exactly."""
    start, stop, step = (_exact(spaced.get(key)) for key in ("start", "stop", "step"))
    if start is None or stop is None or not step:
        return False
    return ((stop - start) / step).denominator != 1


def _exact(number: canonical.JSON) -> Fraction | None:
    return Fraction(repr(number)) if isinstance(number, int | float) and not isinstance(number, bool) else None


# The versions in which expressions compute in another way than in the version before.
EXPRESSIONS: Final = (2,)
# By version: finds what it reads in another way than the version before.
CHANGES: Final[Mapping[int, Callable[[Mapping[str, canonical.JSON]], Iterator[Location]]]] = {2: _version_2}
