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


def child(directory: Path) -> str:
    """The beginning of a script: starts a child that sleeps, and records its process id."""
    return f"sh -c 'echo $$ >> {directory}/pids; exec sleep 60' &"


def starts(directory: Path) -> list[str]:
    """The simulation ids of all starts so far."""
    path = directory / "starts"
    return path.read_text().split() if path.exists() else []


def alive(directory: Path) -> list[int]:
    """The recorded processes that are still running; zombies don't count."""
    path = directory / "pids"
    running = set()
    for pid in map(int, path.read_text().split() if path.exists() else ()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX":
                running.add(pid)
    return sorted(running)
