"""Runs the installed commands as processes, and a deployment that they connect to."""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ems_worker.local import ports
from tests.support import servers, wait

SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Ended:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str


def environment(**settings: str) -> dict[str, str]:
    """The environment of this process with only the given settings of this project."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("EMS_") and name != "NATS_URL"}
    return {**kept, "PYTHONPATH": str(servers.ROOT), "PYTHONWARNINGS": "error", "COLUMNS": "100", **settings}


def start(name: str, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts an installed command; its standard streams are pipes."""
    return subprocess.Popen(
        [SCRIPTS / name, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(env or environment()),
        text=True,
    )


def run(name: str, *arguments: str, env: Mapping[str, str] | None = None, stdin: str = "") -> Ended:
    """Runs a command to its end with this standard input."""
    with start(name, *arguments, env=env) as process:
        try:
            out, err = process.communicate(stdin, timeout=60)
        except BaseException:
            process.kill()
            raise
    assert "Traceback" not in err, err
    return Ended(process.returncode, out, err)


def ready(http: str) -> bool:
    """Whether /readyz of the worker at this address reports that it is ready."""
    try:
        with urllib.request.urlopen(f"http://{http}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except OSError:
        return False


def interrupted(name: str, *arguments: str, after: str, env: Mapping[str, str]) -> Ended:
    """Runs a command and sends it SIGINT once a line of its stderr contains `after`."""
    with start(name, *arguments, env=env) as process:
        assert process.stderr is not None
        seen = ""
        while after not in seen:
            line = process.stderr.readline()
            assert line, f"{name} ended before it printed {after!r}: {seen}"
            seen += line
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=60)
        except BaseException:
            process.kill()
            raise
    assert "Traceback" not in err, err
    return Ended(process.returncode, out, seen + err)


class Deployment:
    """A nats-server, the no-op orchestrator and a worker, each a process. For tests without an event loop."""

    def __init__(self, directory: Path, *, orchestrator: Sequence[str] = ()) -> None:
        """`orchestrator` are flags of `tests.support.oracle`, such as which runs fail and how long runs take."""
        self._directory = directory
        self.nats = servers.NatsServer(directory / "nats")
        self._orchestrator_flags = orchestrator
        self._orchestrator: servers.GrpcProgram | None = None
        self._worker: servers.Program | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of commands that connect to it."""
        return environment(NATS_URL=self.nats.url)

    @property
    def worker_settings(self) -> dict[str, str]:
        """The environment of its worker."""
        assert self._orchestrator is not None
        return environment(
            EMS_SERVER=self.nats.url,
            EMS_ORCHESTRATOR=self._orchestrator.target,
            EMS_DATA_DIR=str(self._directory / "data"),
            EMS_HTTP="",
        )

    def start(self) -> None:
        """Starts all parts and waits until the worker is ready."""
        asyncio.run(self._start())

    def stop(self) -> None:
        """Stops all parts that were started."""
        asyncio.run(self._stop())

    async def _start(self) -> None:
        await self.nats.start()
        flags = ["--server", self.nats.url, *self._orchestrator_flags]
        self._orchestrator = servers.GrpcProgram("tests.support.oracle", flags, log=self._directory / "oracle.log")
        self._orchestrator.start()
        await self._orchestrator.ready()
        http = f"{ports.LOOPBACK}:{ports.free_port()}"
        command = [str(SCRIPTS / "ems-worker"), "run"]
        env = {**self.worker_settings, "EMS_HTTP": http}
        self._worker = servers.Program("ems-worker", command, log=self._directory / "worker.log", env=env)
        self._worker.start()
        await wait.until(lambda: self._ready(http), timeout=30, what="the worker to be ready")

    def _ready(self, http: str) -> bool:
        assert self._worker is not None
        assert self._worker.running, self._worker.last_words()
        return ready(http)

    async def _stop(self) -> None:
        for part in (self._worker, self._orchestrator):
            if part is not None:
                await part.stop(grace=15)
        await self.nats.stop()
