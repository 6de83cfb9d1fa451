"""Named points at which a test has the worker end as if its machine had: `EMS_CRASH_AT=name`, or `name:3` (third time).

The environment is read once, by the daemon; a worker that nobody armed passes every point without a look.
"""

import os
import signal

# Every point there is, in the order of a plan's way; the chaos tests try each.
POINTS = (
    "accept.decided",
    "accept.recorded",
    "accept.acked",
    "accept.published",
    "expand.chunk",
    "expand.begun",
    "dispatch.claimed",
    "dispatch.answered",
    "dispatch.settled",
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

_armed: dict[str, int] = {}


def arm(where: str | None) -> None:
    """Arms the point that `where` names; raises ValueError if there is none of that name."""
    _armed.clear()
    if where:
        name, _, times = where.partition(":")
        if name not in POINTS:
            raise ValueError(f"EMS_CRASH_AT: there is no point {name!r}; there are {', '.join(POINTS)}")
        _armed[name] = int(times or 1)


def point(name: str) -> None:
    """Ends the process by SIGKILL if it is armed for this point and this is the time."""
    if not _armed:
        return
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
