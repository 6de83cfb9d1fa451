"""What processes cost: the CPU time and the peak memory of each, while something is measured. Linux only."""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

# The clock of a process by its id, as clock_getcpuclockid(3) composes it. /proc has ticks of 10 ms only.
_CPU_CLOCK = 2


@dataclass(frozen=True, slots=True)
class Usage:
    """The CPU time of a process while it was measured, and the largest resident size that it has had."""

    cpu_seconds: float
    peak_bytes: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a benchmark: so many jobs, the elapsed time, and what each process used."""

    jobs: int
    seconds: float
    processes: Mapping[str, Usage] = field(default_factory=dict)
    # From the last event of a run to the terminal status, where that is measured.
    drain_seconds: float | None = None

    @property
    def rate(self) -> float:
        """Jobs a second."""
        return self.jobs / self.seconds

    def cpu_us(self, process: str) -> float:
        """Microseconds of CPU time a job of this process."""
        return 1e6 * self.processes[process].cpu_seconds / self.jobs

    def peak_mb(self, process: str) -> float:
        """The peak memory of this process in megabytes."""
        return self.processes[process].peak_bytes / 1e6


class Meter:
    """Measures processes by their names from its creation on, each with the other processes of its session."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = pids
        self._before = {name: session_cpu_seconds(pid) for name, pid in pids.items()}

    @classmethod
    def of(cls, **pids: int) -> Self:
        """A meter of these processes, and of this one as `client`."""
        return cls({**pids, "client": os.getpid()})

    def read(self) -> dict[str, Usage]:
        """What each process used since then."""
        return {
            name: Usage(
                session_cpu_seconds(pid) - self._before[name], sum(peak_bytes(member) for member in _session(pid))
            )
            for name, pid in self._pids.items()
        }


def cpu_seconds(pid: int) -> float:
    """The user and system time that a process has used so far, without its children."""
    return time.clock_gettime((~pid << 3) | _CPU_CLOCK)


def session_cpu_seconds(pid: int) -> float:
    """The same for a process and all others in the session that it leads."""
    return sum(cpu_seconds(member) for member in _session(pid))


def peak_bytes(pid: int) -> int:
    """The largest resident size that a process has had."""
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def _session(leader: int) -> list[int]:
    if os.getsid(leader) != leader or leader == os.getpid():
        return [leader]
    members = [leader]
    for entry in os.scandir("/proc"):
        if entry.name.isdigit() and int(entry.name) != leader:
            try:
                if os.getsid(int(entry.name)) == leader:
                    members.append(int(entry.name))
            except ProcessLookupError:
                continue
    return members
