"""The orchestrator that the benchmarks measure against: it accepts every run and ends it at once.

It is compiled (`noop/main.go`) if Go and Debian's package of gRPC for Go are installed, else in Python
(`noop_python.py`), whose figures are only compared with the raw calls to the same program.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ems_worker.local import ports
from tests.support import servers, wait

SOURCE: Final = Path(__file__).parent / "noop"
BUILD: Final = Path(__file__).parents[1] / "build"
_GOPATH: Final = Path("/usr/share/gocode")
PACKAGES: Final = "golang-go golang-google-grpc-dev"
# Set to "python", the variable makes the benchmarks use the program in Python even where Go is installed.
CHOICE: Final = "BENCH_ORCHESTRATOR"
# What each run reports; the plans of the benchmarks track the first.
METRICS: Final = ("population", *(f"m{number}" for number in range(1, 9)))


def compiled() -> Path | None:
    """The program, built if its source is newer; None if it can't be built on this machine."""
    if os.environ.get(CHOICE) == "python" or shutil.which("go") is None:
        return None
    if not (_GOPATH / "src" / "google.golang.org" / "grpc").exists():
        return None
    binary = BUILD / "noop"
    newest = max(path.stat().st_mtime for path in SOURCE.iterdir())
    if not binary.exists() or binary.stat().st_mtime < newest:
        BUILD.mkdir(exist_ok=True)
        # Built under another name first: another process may be doing the same.
        temporary = BUILD / f"noop.{os.getpid()}"
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(_GOPATH), "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", str(temporary), "."], cwd=SOURCE, env=environment, check=True)
        temporary.rename(binary)
    return binary


def kind() -> str:
    """What it is, for people."""
    if compiled() is not None:
        return "Go"
    return f"Python, because Go isn't there (apt-get install {PACKAGES})"


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """An orchestrator that runs, at this address."""

    target: str
    program: servers.Program

    async def times(self) -> tuple[float, float]:
        """When it received the first start call since the last time, and sent the last event; 0 for never.

        In seconds since the Unix epoch.
        """
        before = len(self.program.log.read_text().splitlines())
        self.program.signal(signal.SIGUSR1)
        await wait.until(lambda: len(self.program.log.read_text().splitlines()) > before, what="the times")
        first, last = self.program.log.read_text().splitlines()[-1].split()
        return int(first) / 1e9, int(last) / 1e9


@contextlib.asynccontextmanager
async def started(
    folder: Path, server: str | None, *, batches: bool = True, slots: int = 1000
) -> AsyncIterator[Orchestrator]:
    """The orchestrator. It publishes ends of runs to this nats-server, or to none."""
    target = f"{ports.LOOPBACK}:{ports.free_port()}"
    program = compiled()
    in_python = [sys.executable, "-m", "benchmarks.noop_python"]
    command = [*([str(program)] if program else in_python), "-listen", target, "-slots", str(slots)]
    command += ["-metrics", ",".join(METRICS)]
    command += ["-silent"] if server is None else ["-server", server.removeprefix("nats://")]
    command += [] if batches else ["-single"]
    async with servers.Program("noop", command, log=folder / "orchestrator.log") as noop:
        port = int(target.rpartition(":")[2])
        await wait.until(lambda: not noop.running or not ports.is_free(port), what="the orchestrator to listen")
        assert noop.running, noop.last_words()
        yield Orchestrator(target, noop)
