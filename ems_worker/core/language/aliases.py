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
_SHORT_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    **{long: (short,) for short, long in LONG_NAMES.items()},
    canonical.BASE_PATH_KEYS[0]: canonical.BASE_PATH_KEYS[1:],
}


def expanded(data: Mapping[str, Any]) -> dict[str, Any]:
    """The plan with long names. Where it has both names, the value of the long one stays."""
    return {LONG_NAMES.get(key, key): value for key, value in data.items() if LONG_NAMES.get(key) not in data}


def check(data: Mapping[str, object], problems: Problems) -> None:
    """Reports keys that a plan has under both names."""
    for short, long in LONG_NAMES.items():
        if short in data and long in data:
            message = f"{short!r} and {long!r} are two names of the same key: keep one of them"
            problems.add("conflicting_keys", (short,), message, on_key=True)


def as_written(location: Location, data: Mapping[str, object]) -> Location:
    """The location in the plan as it was sent of one that has the long name."""
    if not location or location[0] in data:
        return location
    short = next((each for each in _SHORT_NAMES.get(str(location[0]), ()) if each in data), None)
    return location if short is None else (short, *location[1:])
