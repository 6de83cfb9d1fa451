"""Sanitizes what other programs report about a run, so that it can be recorded.

An invalid value (a metric that isn't a number, a time that can't be parsed) becomes None, because the rest of the event
is still true. An event is refused only if it exceeds the limits as a whole.
"""

import functools
import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.lifecycle.run import ErrorKind

MAX_METRICS = 1000
MAX_ARTIFACTS = 200
# Up to so many names of metrics are remembered.
MAX_USUAL = 64
# Characters.
MAX_URI = 2000

_REPORTED_KINDS = frozenset(
    {
        ErrorKind.SIMULATION,
        ErrorKind.INFEASIBLE,
        ErrorKind.INFRASTRUCTURE,
        ErrorKind.TIMEOUT,
        ErrorKind.STOPPED,
    }
)
_NUMBERS = frozenset({float, int})
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# The last millisecond of the year 9999, the latest time of RFC 3339.
_LAST_MS = 253_402_300_799_999


def simulation_id(value: object) -> str:
    """The id of the run that an event is about. Raises Unreadable if it has none."""
    if not isinstance(value, str) or not value:
        raise errors.Unreadable("simulation_id is missing or not a string")
    if len(value) > text.MAX_NAME:
        raise errors.Unreadable(f"simulation_id has {len(value)} characters; the limit is {text.MAX_NAME}")
    return text.encodable(value)


def number(value: object) -> float | None:
    """The value if it is a finite number, else None."""
    if type(value) is float:
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def step(value: object) -> float | None:
    """How far a run is, in a unit of its own; None if the value is not a finite number of at least 0."""
    converted = number(value)
    return converted if converted is not None and converted >= 0 else None


def total(value: object) -> float | None:
    """The step at which a run ends; None if the value is not a finite number above 0."""
    converted = number(value)
    return converted if converted is not None and converted > 0 else None


def metrics(value: object) -> dict[str, float | None]:
    """Names to finite numbers or None. Raises Unreadable if the value isn't a mapping or has too many entries."""
    if value is None:
        return {}
    if (usual := _usual_metrics(value)) is not None:
        return usual
    entries = _mapping("metrics", value, MAX_METRICS)
    named = {_name("metrics", name): number(content) for name, content in entries.items()}
    # Sorted, because protobuf maps have no order and a repeated event must leave the same row.
    return dict(sorted(named.items()))


def _usual_metrics(value: object) -> dict[str, float | None] | None:
    """The same for metrics with nothing unusual about them, several times faster; None for others."""
    if type(value) is not dict or not _NUMBERS.issuperset(map(type, value.values())):
        return None
    names = _sorted_names(tuple(value))
    if names is None:
        return None
    try:
        values = [float(value[name]) for name in names]
    except OverflowError:
        return None
    # Their sum is finite only if all of them are.
    return dict(zip(names, values, strict=True)) if math.isfinite(sum(values)) else None


@functools.lru_cache(maxsize=256)
def _sorted_names(names: tuple[object, ...]) -> tuple[str, ...] | None:
    """Names of metrics in order; None if one of them is unusual. The runs of an experiment mostly have the same."""
    texts = [name for name in names if isinstance(name, str) and name.isascii() and 0 < len(name) <= text.MAX_NAME]
    return tuple(sorted(texts)) if len(texts) == len(names) <= MAX_USUAL else None


def artifacts(value: object) -> dict[str, str]:
    """Names to URIs; values that aren't strings are left out. Raises Unreadable as `metrics` does."""
    if not value and (value is None or isinstance(value, Mapping)):
        return {}
    entries = _mapping("artifacts", value, MAX_ARTIFACTS)
    uris = {_name("artifacts", name): text.encodable(uri) for name, uri in entries.items() if isinstance(uri, str)}
    for name, uri in uris.items():
        if len(uri) > MAX_URI:
            raise errors.Unreadable(f"artifact {name} has a URI of {len(uri)} characters; the limit is {MAX_URI}")
    return dict(sorted(uris.items()))


def failure(kind: object, message: object) -> tuple[ErrorKind, str | None]:
    """Kind and message of a failure.

    An unknown kind counts as `simulation` and is named in the message: a failure is retried only if it is known to be
    the platform's fault.
    """
    clipped = text.clip(message)
    name = kind.lower().removeprefix("error_kind_") if isinstance(kind, str) else ""
    for known in _REPORTED_KINDS:
        if name == known.value:
            return known, clipped
    if not name or name == "unspecified":
        return ErrorKind.SIMULATION, clipped
    unknown = f"error_kind {text.clip(kind, text.MAX_NAME)!r}"
    return ErrorKind.SIMULATION, text.clip(f"{unknown}: {clipped}" if clipped else unknown)


def milliseconds(value: object) -> int | None:
    """A time in RFC 3339, with an offset, as milliseconds since the Unix epoch; None if the value is no such time."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return in_range((moment - _EPOCH) // _MILLISECOND) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def in_range(time_ms: int) -> int | None:
    """The time; None if it is before 1970 or after 9999."""
    return time_ms if 0 < time_ms <= _LAST_MS else None


def _mapping(field: str, value: object, max_entries: int) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise errors.Unreadable(f"{field} is not a mapping of names")
    if len(value) > max_entries:
        raise errors.Unreadable(f"{field} has {len(value)} entries; the limit is {max_entries}")
    return value


def _name(field: str, name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > text.MAX_NAME:
        raise errors.Unreadable(f"{field} has a name that is empty or longer than {text.MAX_NAME} characters")
    return name if name.isascii() else text.encodable(name)
