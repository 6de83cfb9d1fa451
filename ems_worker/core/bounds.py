"""What others say of a run, brought to a size and a shape that can be recorded.

A value that isn't what it should be (a metric that isn't a number, a time that can't be read) becomes None: the rest of
the event is true all the same. Only what exceeds the bounds as a whole is refused.
"""

import math
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from ems_worker import errors
from ems_worker.core.run import ErrorKind

MOST_METRICS = 1000
MOST_ARTIFACTS = 200
# Characters.
LONGEST_NAME = 200
LONGEST_URI = 2000
LONGEST_MESSAGE = 4000

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
    if len(value) > LONGEST_NAME:
        raise errors.Unreadable(f"simulation_id has {len(value)} characters; {LONGEST_NAME} is the limit")
    return _clean(value)


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
    kept = {_name("artifacts", name): _clean(uri) for name, uri in found.items() if isinstance(uri, str)}
    for name, uri in kept.items():
        if len(uri) > LONGEST_URI:
            raise errors.Unreadable(f"artifact {name} has a URI of {len(uri)} characters; {LONGEST_URI} is the limit")
    return dict(sorted(kept.items()))


def words(value: object, longest: int = LONGEST_MESSAGE) -> str | None:
    """A text, cut at `longest` characters; None for none, or for what isn't one."""
    if not isinstance(value, str) or not value:
        return None
    return _clean(value if len(value) <= longest else value[: longest - 1] + "…")


def line(value: object, longest: int) -> str:
    """A text as one line of printable characters, cut at `longest`; empty for none, or for what isn't a text."""
    return "".join(letter if letter.isprintable() else " " for letter in words(value, longest) or "")


def failure(kind: object, message: object) -> tuple[ErrorKind, str | None]:
    """Kind and words of a failure. A kind that isn't known counts as `simulation` and is kept in the words:
    what isn't said to be the platform's fault must not be repeated for ever at the platform's cost."""
    said = words(message)
    name = kind.lower().removeprefix("error_kind_") if isinstance(kind, str) else ""
    for known in _REPORTED_KINDS:
        if name == known.value:
            return known, said
    if not name or name == "unspecified":
        return ErrorKind.SIMULATION, said
    unknown = f"error_kind {words(kind, LONGEST_NAME)!r}"
    return ErrorKind.SIMULATION, words(f"{unknown}: {said}" if said else unknown)


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
    if not isinstance(name, str) or not name or len(name) > LONGEST_NAME:
        raise errors.Unreadable(f"{what} has a name that is empty or has over {LONGEST_NAME} characters")
    return _clean(name)


def _clean(text: str) -> str:
    """Without lone surrogates, which JSON can say and neither SQLite nor UTF-8 can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")
