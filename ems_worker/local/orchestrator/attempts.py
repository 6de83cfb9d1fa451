"""The attempts at a job, by the directories of their runs: `EXPERIMENT-pPOINT-rREPLICATE-aATTEMPT`."""

import re
from pathlib import Path

_ATTEMPT = re.compile(r"(?P<job>.+-a)(?P<attempt>[1-9]\d{0,8})")
# How many attempts before this one are looked for: some may never have started.
_MAX_EARLIER = 100


def prefix(simulation_id: str) -> str | None:
    """What the ids of all attempts at its job begin with, before the attempt's number; None if it has none."""
    match = _ATTEMPT.fullmatch(simulation_id)
    return None if match is None else match["job"]


def earlier_output(directory: Path) -> Path | None:
    """The output directory of the last attempt before this one that has written something; None if there is none."""
    match = _ATTEMPT.fullmatch(directory.name)
    if match is None:
        return None
    last = int(match["attempt"]) - 1
    for number in range(last, max(0, last - _MAX_EARLIER), -1):
        output = directory.with_name(f"{match['job']}{number}") / "output"
        if output.is_dir() and any(output.iterdir()):
            return output
    return None
