"""The orchestrator that the benchmarks measure against: it accepts every run and ends it at once.

It is compiled (`noop/main.go`) if Go and Debian's packages of gRPC for Go are installed, else in Python
(`tests/support/oracle.py`). A Python one takes several times as much time for a call as its client, so figures with it
say less about the client; they are only compared with the raw calls to the same orchestrator.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ems_worker.local import ports
from tests.support import servers, wait

SOURCE: Final = Path(__file__).parent / "noop"
_BINARY: Final = Path(__file__).parents[1] / "build" / "noop"
_GOPATH: Final = Path("/usr/share/gocode")
PACKAGES: Final = "golang-go golang-google-grpc-dev"
# What each run reports; the plans of the benchmarks track the first.
METRICS: Final = ("population", *(f"m{number}" for number in range(1, 9)))


def compiled() -> Path | None:
    """The program, built if its source is newer; None if it can't be built on this machine."""
    if shutil.which("go") is None or not (_GOPATH / "src" / "google.golang.org" / "grpc").exists():
        return None
    newest = max(path.stat().st_mtime for path in SOURCE.iterdir())
    if not _BINARY.exists() or _BINARY.stat().st_mtime < newest:
        _BINARY.parent.mkdir(exist_ok=True)
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(_GOPATH)}
        subprocess.run(["go", "build", "-o", str(_BINARY), "."], cwd=SOURCE, env=environment, check=True)
    return _BINARY


@dataclass(frozen=True, slots=True)
class Orchestrator:
    """An orchestrator that runs, at this address."""

    target: str
    program: servers.Program

    async def times(self) -> tuple[float, float]:
        """When it received the first start call since the last time, and sent the last event; 0 for never.

        In seconds since the Unix epoch. Only a compiled one knows.
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
    program = compiled()
    if program is None:
        assert server is not None, "the orchestrator in Python needs a nats-server"
        options = ["--server", server, "--slots", str(slots), *([] if batches else ["--no-batch"])]
        async with servers.GrpcProgram("tests.support.oracle", options, log=folder / "orchestrator.log") as oracle:
            yield Orchestrator(oracle.target, oracle)
        return
    port = ports.free_port()
    target = f"{ports.LOOPBACK}:{port}"
    command = [str(program), "-listen", target, "-slots", str(slots)]
    command += ["-silent"] if server is None else ["-server", server.removeprefix("nats://")]
    command += [] if batches else ["-single"]
    async with servers.Program("noop", command, log=folder / "orchestrator.log") as noop:
        await wait.until(lambda: not ports.is_free(port), what="the orchestrator to listen")
        assert noop.running, noop.last_words()
        yield Orchestrator(target, noop)
