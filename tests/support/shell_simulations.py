"""Simulations as shell scripts that record their starts and process ids in a directory of the test."""

import contextlib
from pathlib import Path

RESULT = """echo '{"metrics": {"population": 12}}'"""


def recorded(directory: Path, then: str) -> str:
    """A script that records its simulation id and its process id, and then runs a command."""
    return f"echo $SIMULATION_ID >> {directory}/starts; echo $$ >> {directory}/pids; {then}"


def until_released(directory: Path) -> str:
    """A recorded script that ends with a result when the test creates the file `go`."""
    return recorded(directory, f"until [ -e {directory}/go ]; do sleep 0.01; done; {RESULT}")


def starts(directory: Path) -> list[str]:
    """The simulation ids of all starts so far."""
    path = directory / "starts"
    return path.read_text().split() if path.exists() else []


def alive(directory: Path) -> list[int]:
    """The recorded processes that are still running; zombies don't count."""
    running = []
    for pid in map(int, (directory / "pids").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX":
                running.append(pid)
    return running
