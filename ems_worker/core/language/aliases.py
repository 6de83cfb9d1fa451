"""Short names of a plan's keys, for users of other tools: the parser only knows the long ones."""

from collections.abc import Mapping
from typing import Any, Final

from ems_worker.core import canonical
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

LONG_NAMES: Final[Mapping[str, str]] = {
    "name": "experiment_name",
    "parameters": "parameter_space",
    "replicates": "num_replicates_per_run",
    "metrics": "metrics_to_track",
}
_SPACE: Final = "parameter_space"
_SHORT_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    **{long: (short,) for short, long in LONG_NAMES.items()},
    canonical.BASE_PATH_KEYS[0]: canonical.BASE_PATH_KEYS[1:],
}


def expanded(data: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with long names. Where it has both names, the value of the long one stays."""
    plan = _expanded(data)
    if isinstance(spaces := plan.get(_SPACE), list):
        plan[_SPACE] = [_expanded(space) if isinstance(space, Mapping) else space for space in spaces]
    return plan


def _expanded(data: Mapping[str, Any]) -> dict[str, Any]:
    return {LONG_NAMES.get(key, key): value for key, value in data.items() if LONG_NAMES.get(key) not in data}


def check(data: Mapping[str, object], problems: Problems) -> None:
    """Reports keys that a plan, or one of its spaces, has under both names."""
    _check(data, (), problems)
    spaces = data.get(_SPACE, data.get(_SHORT_NAMES[_SPACE][0]))
    for index, space in enumerate(spaces if isinstance(spaces, list) else ()):
        if isinstance(space, Mapping):
            _check(space, (_SPACE, index), problems)


def _check(data: Mapping[str, object], location: Location, problems: Problems) -> None:
    for short, long in LONG_NAMES.items():
        if short in data and long in data:
            message = f"{short!r} and {long!r} are two names of the same key: keep one of them"
            problems.add("conflicting_keys", (*location, short), message, on_key=True)


def as_written(location: Location, data: Mapping[str, object]) -> Location:
    """The location in the plan as it was sent of one that has the long name."""
    first, rest = _as_written(location[:1], data), location[1:]
    spaces = data.get(str(first[0])) if location[:1] == (_SPACE,) else None
    if isinstance(spaces, list) and isinstance(index := rest[:1] and rest[0], int):
        space = spaces[index]
        rest = (index, *(_as_written(rest[1:2], space) if isinstance(space, Mapping) else rest[1:2]), *rest[2:])
    return (*first, *rest)


def _as_written(key: Location, data: Mapping[str, object]) -> Location:
    """A key, which may be missing, as this mapping has it."""
    if not key or key[0] in data:
        return key
    short = next((each for each in _SHORT_NAMES.get(str(key[0]), ()) if each in data), None)
    return key if short is None else (short,)
