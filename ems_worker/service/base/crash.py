"""Named points at which a test can kill the worker, as if its machine had failed.

`EMS_CRASH_AT=name` kills it at that point, `name:3` when it gets there for the third time. `name@text` kills it there
only if the subject of the point contains the text. Several points are separated by commas.
"""

import os
import signal

# All points, in the order in which a plan passes them; the chaos tests try each.
POINTS = (
    "accept.read",
    "accept.decided",
    "accept.recorded",
    "accept.acked",
    "accept.published",
    "expand.chunk",
    "dispatch.claimed",
    "dispatch.answered",
    "dispatch.settled",
    "track.read",
    "track.decoded",
    "track.recorded",
    "track.acked",
    "steering.recorded",
    "steering.publishing",
    "steering.published",
    "steering.judged",
    "steering.applied",
    "limits.marked",
    "limits.stopped",
    "suspend.paused",
    "suspend.resumed",
    "extend.identified",
    "extend.begun",
    "extend.matched",
    "extend.withdrawn",
    "extend.returned",
    "remove.recorded",
    "remove.purging",
    "ledger.concluding",
    "ledger.concluded",
    "report.results",
    "report.cursor",
    "report.points",
    "settle.stragglers",
    "settle.published",
    "settle.recorded",
    "report.file",
    "report.composed",
    "report.status",
)

# For each armed point, how many times are left, and the text that its subject has to contain.
_armed: dict[str, tuple[int, str]] = {}


def arm(where: str | None) -> None:
    """Arms the points in `where`, the value of EMS_CRASH_AT; raises ValueError for an unknown one."""
    _armed.clear()
    for entry in where.split(",") if where else ():
        position, _, text = entry.partition("@")
        name, _, times = position.partition(":")
        if name not in POINTS:
            raise ValueError(f"EMS_CRASH_AT: there is no point {name!r}; there are {', '.join(POINTS)}")
        _armed[name] = int(times or 1), text


def point(name: str, about: str = "") -> None:
    """Kills the process if this point is armed for this subject and this time."""
    if not _armed or name not in _armed:
        return
    times, text = _armed[name]
    if text in about:
        _armed[name] = times - 1, text
        if times == 1:
            os.kill(os.getpid(), signal.SIGKILL)
