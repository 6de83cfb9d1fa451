"""Times as people write them."""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from ems_worker.cli import exits

_AGO: Final = re.compile(r"(?P<number>[0-9]{1,6})\s*(?P<unit>[smhdw])")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def now() -> datetime:
    """The time by this machine's clock."""
    return datetime.now(UTC)


def since(text: str, at: datetime) -> str:
    """A time in RFC 3339 from `3d` (before `at`) or from a date, with or without a time of day: local unless it says.

    Raises exits.Misused if it is neither.
    """
    try:
        if match := _AGO.fullmatch(text.strip()):
            moment = at - timedelta(**{_UNITS[match["unit"]]: int(match["number"])})
        else:
            moment = datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise exits.Misused(f"--since {text}: should be like 3d, 12h, 30m, 2026-11-30 or 2026-11-30T14:00") from error
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
