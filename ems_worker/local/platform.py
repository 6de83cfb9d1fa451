"""A complete platform on this machine: nats-server, orchestrator and worker as processes, started and kept running."""

import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ems_worker.local import guardian, nats_server, ports, process

_READY_SECONDS = 30.0
_POLL_SECONDS = 0.05
_WATCH_SECONDS = 0.2
_ORCHESTRATOR_GRACE_SECONDS = 12.0
_WORKER_GRACE_SECONDS = 15.0
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 30.0
# A part that ran so long before it died starts again without the pause of its earlier deaths.
_HEALTHY_SECONDS = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen about a platform. Ports that are None are chosen freely."""

    data_dir: Path
    slots: int | None = None
    simulator: str | None = None
    nats_port: int | None = None
    orchestrator_port: int | None = None
    http_port: int | None = None
    base_config_root: Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """Where the platform's parts are."""

    nats_url: str
    orchestrator: str
    http: str
    data_dir: str
    manifest: str


@dataclasses.dataclass(slots=True)
class _Part:
    """A process of the platform, with what it takes to start it again."""

    name: str
    log: Path
    pid: Callable[[], int]
    running: Callable[[], bool]
    start: Callable[[], Awaitable[None]]
    started_at: float = 0.0
    deaths: int = 0


class Platform:
    """`async with Platform(options) as platform:` has everything ready at `platform.addresses`.

    `watch` keeps it running. At the end everything stops: the worker, the orchestrator with its simulations, the
    broker. `say` gets what a person at the terminal should know.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._directory = options.data_dir.resolve()
        self._stack = contextlib.AsyncExitStack()
        self._parts: list[_Part] = []
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """Where everything is; once it is entered."""
        if self._addresses is None:
            raise process.PlatformFailed("the platform has not been started")
        return self._addresses

    async def __aenter__(self) -> Self:
        async with contextlib.AsyncExitStack() as stack:
            await self._start(stack)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def watch(self) -> None:
        """Starts again, for ever, what ends without being asked to; longer and longer after each death."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(self._keep(part))

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        options, directory = self._options, self._directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as failed:
            raise process.DirectoryUnusable(f"the directory {directory} can't be made: {failed.strerror}") from failed
        stack.enter_context(process.lock(directory / "lock", "platform"))
        self._say("starting nats-server, orchestrator and worker")
        guards = stack.enter_context(guardian.Guardian(directory / "orchestrator" / "runs"))

        broker = nats_server.NatsServer(directory / "nats", port=options.nats_port)
        stack.push_async_callback(broker.stop)
        await self._add(
            guards, _Part("nats-server", broker.log, lambda: broker.pid, lambda: broker.running, broker.start)
        )

        target = f"{ports.LOOPBACK}:{ports.chosen(options.orchestrator_port, 'orchestrator')}"
        orchestrator = self._child("orchestrator", self._orchestrator_command(target, broker.url), {})
        stack.push_async_callback(orchestrator.stop, _ORCHESTRATOR_GRACE_SECONDS)
        await self._add(guards, _child_part(orchestrator))
        await _ready(orchestrator, lambda: _serving(target))

        http = f"{ports.LOOPBACK}:{ports.chosen(options.http_port, 'worker')}"
        settings = {
            "EMS_SERVER": broker.url,
            "EMS_ORCHESTRATOR": target,
            "EMS_DATA_DIR": str(directory / "worker"),
            "EMS_HTTP": http,
        }
        if options.base_config_root is not None:
            settings["EMS_BASE_CONFIG_ROOT"] = str(options.base_config_root.resolve())
        worker = self._child("worker", [sys.executable, "-m", "ems_worker.cli.worker", "run"], settings)
        stack.push_async_callback(worker.stop, _WORKER_GRACE_SECONDS)
        await self._add(guards, _child_part(worker))
        await _ready(worker, lambda: _answers(http, "/readyz"))

        manifest = str(directory / "worker" / "manifest.db")
        self._addresses = Addresses(broker.url, target, f"http://{http}", str(directory), manifest)

    def _child(self, name: str, command: list[str], settings: Mapping[str, str]) -> process.Child:
        # Whoever is let into another NATS by this environment needs nothing of that here.
        others = ("NATS_", "EMS_NATS_", "EMS_CONTEXT", "EMS_ORCHESTRATOR")
        env = {name: value for name, value in os.environ.items() if not name.startswith(others)} | dict(settings)
        return process.Child(name, command, log=self._directory / "logs" / f"{name}.log", env=env)

    def _orchestrator_command(self, target: str, server: str) -> list[str]:
        given = {
            "--listen": target,
            "--server": server,
            "--data-dir": str(self._directory / "orchestrator"),
            "--slots": self._options.slots,
            "--simulator": self._options.simulator,
        }
        flags = [f"{name}={value}" for name, value in given.items() if value is not None]
        return [sys.executable, "-m", "ems_worker.local.orchestrator", *flags]

    async def _add(self, guards: guardian.Guardian, part: _Part) -> None:
        start = part.start

        async def guarded() -> None:
            await start()
            guards.watch(part.pid())
            part.started_at = time.monotonic()

        part.start = guarded
        await part.start()
        self._parts.append(part)

    async def _keep(self, part: _Part) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            if part.running():
                continue
            if time.monotonic() - part.started_at > _HEALTHY_SECONDS:
                part.deaths = 0
            pause = min(_FIRST_PAUSE_SECONDS * 2**part.deaths, _LONGEST_PAUSE_SECONDS)
            part.deaths += 1
            self._say(f"{part.name} ended unexpectedly (log: {part.log}); starting it again in {pause:g} s")
            await asyncio.sleep(pause)
            try:
                await part.start()
            except process.PlatformFailed as failed:
                self._say(f"{part.name} did not start: {failed}")


def _child_part(child: process.Child) -> _Part:
    async def start() -> None:
        child.start()

    return _Part(child.name, child.log, lambda: child.pid, lambda: child.running, start)


async def _ready(child: process.Child, probe: Callable[[], Awaitable[bool]]) -> None:
    """Returns once the probe says yes. Raises PlatformFailed, with the end of the log, where it never does."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while child.running:
                if await probe():
                    return
                await asyncio.sleep(_POLL_SECONDS)
    state = "is not ready" if child.running else f"ended with {child.exit_code}"
    raise process.PlatformFailed(f"{child.name} {state}; its log, {child.log}, ends with:\n{child.last_words()}")


async def _serving(target: str) -> bool:
    """Whether the standard gRPC health service says so."""
    async with grpc.aio.insecure_channel(target) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _answers(address: str, path: str) -> bool:
    """Whether a GET of this path is answered with 200."""
    host, _, port = address.rpartition(":")
    try:
        reader, writer = await asyncio.open_connection(host, int(port))
    except OSError:
        return False
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        status = (await reader.readline()).split()
    except OSError:
        return False
    finally:
        writer.close()
    return status[1:2] == [b"200"]
