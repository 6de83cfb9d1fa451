"""What others say of a run, brought to a size and a shape that can be recorded.

A value that isn't what it should be (a metric that isn't a number, a time that can't be read) becomes None: the rest of
the event is true all the same. Only what exceeds the bounds as a whole is refused.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.lifecycle.run import ErrorKind

MOST_METRICS = 1000
MOST_ARTIFACTS = 200
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
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
# The last millisecond of the year 9999: what RFC 3339 can say.
_LAST_MS = 253_402_300_799_999


def simulation_id(value: object) -> str:
    """The name of the run that an event is about; raises Unreadable where it has none."""
    if not isinstance(value, str) or not value:
        raise errors.Unreadable("simulation_id is missing or isn't a text")
    if len(value) > text.MAX_NAME:
        raise errors.Unreadable(f"simulation_id has {len(value)} characters; {text.MAX_NAME} is the limit")
    return text.encodable(value)


def number(value: object) -> float | None:
    """A finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        converted = float(value)
    except OverflowError:
        return None
    return converted if math.isfinite(converted) else None


def metrics(value: object) -> dict[str, float | None]:
    """Name to finite number or None; raises Unreadable for what isn't a mapping, or too large a one."""
    if value is None:
        return {}
    found = _mapping("metrics", value, MOST_METRICS)
    # In one order: protobuf maps have none, and an event that is heard twice leaves the same row.
    named = {_name("metrics", name): number(content) for name, content in found.items()}
    return dict(sorted(named.items()))


def artifacts(value: object) -> dict[str, str]:
    """Name to URI, without what isn't a text; raises Unreadable as `metrics` does."""
    if value is None:
        return {}
    found = _mapping("artifacts", value, MOST_ARTIFACTS)
    kept = {_name("artifacts", name): text.encodable(uri) for name, uri in found.items() if isinstance(uri, str)}
    for name, uri in kept.items():
        if len(uri) > MAX_URI:
            raise errors.Unreadable(f"artifact {name} has a URI of {len(uri)} characters; {MAX_URI} is the limit")
    return dict(sorted(kept.items()))


def failure(kind: object, message: object) -> tuple[ErrorKind, str | None]:
    """Kind and words of a failure. A kind that isn't known counts as `simulation` and is kept in the words:
    what isn't said to be the platform's fault must not be repeated for ever at the platform's cost."""
    said = text.clip(message)
    name = kind.lower().removeprefix("error_kind_") if isinstance(kind, str) else ""
    for known in _REPORTED_KINDS:
        if name == known.value:
            return known, said
    if not name or name == "unspecified":
        return ErrorKind.SIMULATION, said
    unknown = f"error_kind {text.clip(kind, text.MAX_NAME)!r}"
    return ErrorKind.SIMULATION, text.clip(f"{unknown}: {said}" if said else unknown)


def milliseconds(value: object) -> int | None:
    """A time in RFC 3339, with its offset, as milliseconds since the Unix epoch; None for what isn't one."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value)
        return in_range((moment - _EPOCH) // _MILLISECOND) if moment.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def in_range(time_ms: int) -> int | None:
    """The time, None where it is before 1970 or after 9999."""
    return time_ms if 0 < time_ms <= _LAST_MS else None


def _mapping(what: str, value: object, most: int) -> Mapping[object, object]:
    if not isinstance(value, Mapping):
        raise errors.Unreadable(f"{what} isn't a mapping of names")
    if len(value) > most:
        raise errors.Unreadable(f"{what} has {len(value)} entries; {most} is the limit")
    return value


def _name(what: str, name: object) -> str:
    if not isinstance(name, str) or not name or len(name) > text.MAX_NAME:
        raise errors.Unreadable(f"{what} has a name that is empty or has over {text.MAX_NAME} characters")
    return text.encodable(name)
