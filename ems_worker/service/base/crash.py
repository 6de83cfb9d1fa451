"""Named points at which a test has the worker end as if its machine had: `EMS_CRASH_AT=name`, or `name:3` (third time).

`name@word` ends it only where the point is about something with that word; several are separated by commas.

The environment is read once, by the daemon; a worker that nobody armed passes every point without a look.
"""

import os
import signal

# Every point there is, in the order of a plan's way; the chaos tests try each.
POINTS = (
    "accept.read",
    "accept.decided",
    "accept.recorded",
    "accept.acked",
    "accept.published",
    "expand.chunk",
    "expand.begun",
    "dispatch.claimed",
    "dispatch.answered",
    "dispatch.settled",
    "track.read",
    "track.decoded",
    "track.recorded",
    "track.acked",
    "control.recorded",
    "control.carried_out",
    "control.answered",
    "limits.marked",
    "limits.stopped",
    "ledger.concluding",
    "ledger.concluded",
    "report.results",
    "report.cursor",
    "report.file",
    "report.composed",
    "report.status",
)

# The times that are left, and the word.
_armed: dict[str, tuple[int, str]] = {}


def arm(where: str | None) -> None:
    """Arms the points that `where` names; raises ValueError if there is none of that name."""
    _armed.clear()
    for one in where.split(",") if where else ():
        place, _, word = one.partition("@")
        name, _, times = place.partition(":")
        if name not in POINTS:
            raise ValueError(f"EMS_CRASH_AT: there is no point {name!r}; there are {', '.join(POINTS)}")
        _armed[name] = int(times or 1), word


def point(name: str, about: str = "") -> None:
    """Ends the process by SIGKILL if it is armed for this point, about this, and this is the time."""
    if not _armed or name not in _armed:
        return
    times, word = _armed[name]
    if word in about:
        _armed[name] = times - 1, word
        if times == 1:
            os.kill(os.getpid(), signal.SIGKILL)
