"""A complete platform on this machine: nats-server, orchestrator and worker as processes, started and kept running."""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ems_worker import errors
from ems_worker.adapters import jetstream
from ems_worker.adapters.orchestrator import security
from ems_worker.local import entry, guardian, keeping, nats_server, ports, process
from ems_worker.local.orchestrator import access
from ems_worker.settings import Channel, private, running

# A worker that wasn't healthy for so long is ended and started again. It says itself that it isn't well when its event
# loop hasn't turned for 15 s.
HUNG_SECONDS = 30.0
_READY_SECONDS = 30.0
_POLL_SECONDS = 0.05
_ORCHESTRATOR_GRACE_SECONDS = 12.0
_WORKER_GRACE_SECONDS = 15.0
# What a platform's directory has in it, with what the demo exports.
_OURS = ("lock", "nats", "orchestrator", "worker", "logs", "*.csv")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen about a platform. Ports that are None are chosen freely.

    The orchestrator is reached by a Unix socket; by TCP, with a token, where a port is given. `secured`: NATS has TLS
    and a user for each role, with an nkey and that role's rights alone; without it one user, who may do everything.
    """

    data_dir: Path
    slots: int | None = None
    simulator: str | None = None
    nats_port: int | None = None
    orchestrator_port: int | None = None
    http_port: int | None = None
    base_config_root: Path | None = None
    secured: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """Where the platform's parts are; `context` is a file of NATS' address and credentials, as the `nats` command's."""

    nats_url: str
    context: str
    orchestrator: str
    http: str
    data_dir: str
    manifest: str


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
        self._parts: list[keeping.Part] = []
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
        """Starts again, for ever, what ends without being asked to, and a worker that hangs."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(keeping.keep(part, self._say, hung_seconds=HUNG_SECONDS))

    async def _start(self, stack: contextlib.AsyncExitStack) -> None:
        options, directory = self._options, self._directory
        try:
            private.data_directory(directory, _OURS)
            stack.enter_context(process.lock(directory / "lock", "platform"))
            for name in ("orchestrator", "logs", "worker"):
                private.directory(directory / name)
        except errors.FileUnwritable as failed:
            raise process.DirectoryUnusable(str(failed)) from failed
        self._say("starting nats-server, orchestrator and worker")
        guards = stack.enter_context(guardian.Guardian(directory / "orchestrator" / "runs"))

        port = ports.chosen(options.nats_port, "nats-server")
        target, token = self._orchestrator_way()
        let_in = entry.roles if options.secured else entry.password
        try:
            way = let_in(directory / "nats", port, target, str(token) if token is not None else None)
        except errors.FileUnwritable as failed:
            raise process.DirectoryUnusable(str(failed)) from failed
        broker = nats_server.NatsServer(directory / "nats", port=port, more=way.configuration)
        # Before the broker starts: a client that was connected to the platform before comes back at once.
        stack.enter_context(running.announced(way.platform))
        stack.push_async_callback(broker.stop)
        await self._add(
            guards,
            keeping.Part(
                "nats-server",
                broker.log,
                lambda: broker.pid,
                lambda: broker.running,
                broker.start,
                lambda _: broker.stop(),
            ),
        )
        if way.admin is not None:
            await jetstream.provision(way.admin, _READY_SECONDS)

        orchestrator = self._child("orchestrator", self._orchestrator_command(target, token, way.orchestrator), {})
        stack.push_async_callback(orchestrator.stop, _ORCHESTRATOR_GRACE_SECONDS)
        await self._add(guards, _child_part(orchestrator))
        await _ready(orchestrator, lambda: _serving(target, token))

        http = f"{ports.LOOPBACK}:{ports.chosen(options.http_port, 'worker')}"
        settings = {
            **way.worker,
            "EMS_ORCHESTRATOR": target,
            "EMS_DATA_DIR": str(directory / "worker"),
            "EMS_HTTP": http,
        }
        if token is not None:
            settings["EMS_ORCHESTRATOR_TOKEN"] = str(token)
        if options.base_config_root is not None:
            settings["EMS_BASE_CONFIG_ROOT"] = str(options.base_config_root.resolve())
        worker = self._child("worker", [sys.executable, "-P", "-m", "ems_worker.cli.worker", "run"], settings)
        stack.push_async_callback(worker.stop, _WORKER_GRACE_SECONDS)
        await self._add(guards, _child_part(worker, healthy=lambda: keeping.answers(http, "/healthz")))
        await _ready(worker, lambda: keeping.answers(http, "/readyz"))

        manifest = str(directory / "worker" / "manifest.db")
        self._addresses = Addresses(
            way.platform.url, str(way.context), target, f"http://{http}", str(directory), manifest
        )

    def _orchestrator_way(self) -> tuple[str, Path | None]:
        """Its gRPC target, and the file of the token that calls by TCP carry.

        Without a port it is a Unix socket, unless all of our directories have paths too long for one.
        """
        directory, port = self._directory / "orchestrator", self._options.orchestrator_port
        name = f"{secrets.token_hex(4)}.sock"
        for socket in (directory / "grpc.sock", running.directory(os.environ) / name) if port is None else ():
            if len(os.fsencode(socket)) <= access.LONGEST_SOCKET_PATH:
                return f"unix:{socket}", None
        target = f"{ports.LOOPBACK}:{ports.chosen(port, 'orchestrator')}"
        token = directory / "token"
        os.close(private.write(token, secrets.token_urlsafe(32).encode()))
        return target, token

    def _child(self, name: str, command: list[str], settings: Mapping[str, str]) -> process.Child:
        # Whoever is let into another NATS by this environment needs nothing of that here.
        others = ("NATS_", "EMS_NATS_", "EMS_CONTEXT", "EMS_ORCHESTRATOR")
        env = {name: value for name, value in os.environ.items() if not name.startswith(others)} | dict(settings)
        return process.Child(name, command, log=self._directory / "logs" / f"{name}.log", env=env)

    def _orchestrator_command(self, target: str, token: Path | None, context: Path) -> list[str]:
        given = {
            "--listen": target,
            "--token-file": token,
            "--context": context,
            "--data-dir": str(self._directory / "orchestrator"),
            "--slots": self._options.slots,
            "--simulator": self._options.simulator,
        }
        flags = [f"{name}={value}" for name, value in given.items() if value is not None]
        return [sys.executable, "-P", "-m", "ems_worker.local.orchestrator", *flags]

    async def _add(self, guards: guardian.Guardian, part: keeping.Part) -> None:
        start = part.start

        async def guarded() -> None:
            await start()
            guards.watch(part.pid())

        part.start = guarded
        await part.start()
        self._parts.append(part)


def _child_part(child: process.Child, healthy: Callable[[], Awaitable[bool]] | None = None) -> keeping.Part:
    async def start() -> None:
        child.start()

    return keeping.Part(
        child.name, child.log, lambda: child.pid, lambda: child.running, start, child.stop, healthy=healthy
    )


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


async def _serving(target: str, token: Path | None) -> bool:
    """Whether the standard gRPC health service says so."""
    async with security.channel(Channel(target, token=token), ()) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
