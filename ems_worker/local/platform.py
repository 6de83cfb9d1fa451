"""A complete platform on this machine: nats-server, orchestrator and worker, started as processes and kept running."""

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
from ems_worker.local.orchestrator import access, store
from ems_worker.settings import Channel, private, running

# A worker that is unhealthy for this long is restarted. It reports itself as unhealthy when its event loop has been
# blocked for 15 s.
HUNG_SECONDS = 30.0
_READY_SECONDS = 30.0
_POLL_SECONDS = 0.05
_ORCHESTRATOR_GRACE_SECONDS = 12.0
_WORKER_GRACE_SECONDS = 15.0
# The entries of a platform's directory, including the exports of the demo.
OURS = ("lock", "guests", "nats", "orchestrator", "worker", "logs", "*.csv")


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """The options of a platform. A port that is None is chosen freely.

    The orchestrator listens on a Unix socket or, if a port is given, on TCP with a token. With `secured`, NATS uses TLS
    and has one user per role, each with an nkey and only the rights of that role. Otherwise it has one user with all
    rights.
    """

    data_dir: Path
    slots: int | None = None
    simulator: str | None = None
    model_version: str | None = None
    config_format: str | None = None
    nats_port: int | None = None
    orchestrator_port: int | None = None
    http_port: int | None = None
    base_config_root: Path | None = None
    secured: bool = False
    continues: bool = True


@dataclasses.dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of the parts; `context` is a file for the `nats` command. Built in, `simulator` is empty."""

    nats_url: str
    context: str
    orchestrator: str
    http: str
    data_dir: str
    manifest: str
    simulator: str
    slots: int


class Platform:
    """A platform. In `async with Platform(options, say) as platform:` everything is ready at `platform.addresses`.

    `watch` keeps it running. On exit the worker, the orchestrator with its simulations, and the broker are stopped, in
    this order. `say` receives messages for the person at the terminal.
    """

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._say = say
        self._directory = options.data_dir.resolve()
        self._guardian = guardian.Guardian(self._directory / "orchestrator" / "runs")
        self._stack = contextlib.AsyncExitStack()
        self._parts: list[keeping.Part] = []
        self._addresses: Addresses | None = None

    @property
    def addresses(self) -> Addresses:
        """The addresses of the parts, once they have started."""
        if self._addresses is None:
            raise process.PlatformFailed("the platform has not been started")
        return self._addresses

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def watch(self) -> None:
        """Restarts parts that end unexpectedly and a worker that hangs, until cancelled."""
        async with asyncio.TaskGroup() as group:
            for part in self._parts:
                group.create_task(
                    keeping.keep(part, self._say, hung_seconds=HUNG_SECONDS, start_seconds=_READY_SECONDS)
                )

    async def _start(self) -> None:
        self._prepare_directory()
        self._say("starting nats-server, orchestrator and worker")
        self._stack.enter_context(self._guardian)
        orchestrator = self._orchestrator_channel()
        broker = await self._start_broker(orchestrator)
        await self._start_orchestrator(orchestrator, broker.orchestrator)
        http = await self._start_worker(orchestrator, broker.worker)
        self._addresses = Addresses(
            nats_url=broker.platform.url,
            context=str(broker.context),
            orchestrator=orchestrator.target,
            http=f"http://{http}",
            data_dir=str(self._directory),
            manifest=str(self._directory / "worker" / "manifest.db"),
            simulator=self._options.simulator or "",
            slots=self._options.slots or os.cpu_count() or 1,
        )

    def _prepare_directory(self) -> None:
        """Creates and locks the directory. Raises DirectoryUnusable."""
        try:
            private.data_directory(self._directory, OURS)
            self._stack.enter_context(process.lock(self._directory / "lock", "platform"))
            for name in ("orchestrator", "logs", "worker"):
                private.directory(self._directory / name)
        except errors.FileUnwritable as failed:
            raise process.DirectoryUnusable(str(failed)) from failed

    def _orchestrator_channel(self) -> Channel:
        """The address of the orchestrator, with a new token if it is a TCP port.

        Without a given port it is a Unix socket, unless the paths of all our directories are too long for one.
        """
        directory, port = self._directory / "orchestrator", self._options.orchestrator_port
        if port is None:
            for socket in (directory / "grpc.sock", running.directory(os.environ) / f"{secrets.token_hex(4)}.sock"):
                if len(os.fsencode(socket)) <= access.MAX_SOCKET_PATH:
                    return Channel(f"unix:{socket}")
        target = f"{ports.LOOPBACK}:{ports.choose(port, 'orchestrator')}"
        token = directory / "token"
        os.close(private.write(token, secrets.token_urlsafe(32).encode()))
        return Channel(target, token=token)

    async def _start_broker(self, orchestrator: Channel) -> entry.Entry:
        """Starts nats-server and announces the platform; returns the users of the broker."""
        directory = self._directory / "nats"
        port = ports.choose(self._options.nats_port, "nats-server")
        token = str(orchestrator.token) if orchestrator.token is not None else None
        make_users = entry.roles if self._options.secured else entry.password
        try:
            users = make_users(directory, port, orchestrator.target, token)
        except errors.FileUnwritable as failed:
            raise process.DirectoryUnusable(str(failed)) from failed
        server = nats_server.NatsServer(directory, port=port, more=users.configuration)
        # Announced before the broker starts: clients of an earlier platform at this address reconnect at once.
        self._stack.enter_context(running.announced(self._described(users.platform)))
        self._stack.push_async_callback(server.stop)
        await self._add(
            keeping.Part(
                "nats-server",
                server.log,
                pid=lambda: server.pid,
                running=lambda: server.running,
                start=server.start,
                stop=lambda _: server.stop(),
            )
        )
        if users.admin is not None:
            await jetstream.provision(users.admin, _READY_SECONDS)
        return users

    def _described(self, platform: running.Platform) -> running.Platform:
        """The platform with what `ems doctor` checks."""
        port = self._options.http_port
        return dataclasses.replace(
            platform,
            http=None if port is None else f"{ports.LOOPBACK}:{port}",
            simulator=self._options.simulator,
            started_in=str(Path.cwd()),
        )

    async def _start_orchestrator(self, channel: Channel, context: Path) -> None:
        options = {
            "--listen": channel.target,
            "--token-file": channel.token,
            "--context": context,
            "--data-dir": self._directory / "orchestrator",
            "--slots": self._options.slots,
            "--simulator": self._options.simulator,
            "--model-version": self._options.model_version,
            "--config-format": self._options.config_format,
            "--retention": os.environ.get("EMS_RETENTION") or None,  # a setting of the worker
        }
        flags = [f"{name}={value}" for name, value in options.items() if value is not None]
        child = self._child("orchestrator", ["ems_worker.local.orchestrator", *flags], {})
        if again := self._interrupted_runs():
            self._say(f"starting {again} again that the last stop interrupted")
        self._stack.callback(self._say_what_is_left)
        self._stack.push_async_callback(child.stop, _ORCHESTRATOR_GRACE_SECONDS)
        await self._add(_child_part(child))
        await _wait_until_ready(child, lambda: _is_serving(channel))

    def _interrupted_runs(self) -> str:
        """How many runs the orchestrator's next start starts again, for people; empty if none."""
        runs = store.left(self._directory / "orchestrator" / "orchestrator.db").interrupted
        return "" if not runs else "1 run" if runs == 1 else f"{runs:,} runs"

    def _say_what_is_left(self) -> None:
        if self._options.continues and (again := self._interrupted_runs()):
            self._say(f"interrupted {again}, which the next start will start again; this costs no attempt")

    async def _start_worker(self, orchestrator: Channel, settings: Mapping[str, str]) -> str:
        """Starts the worker; returns the address of its HTTP endpoints."""
        http = f"{ports.LOOPBACK}:{ports.choose(self._options.http_port, 'worker')}"
        env = {
            **settings,
            "EMS_ORCHESTRATOR": orchestrator.target,
            "EMS_DATA_DIR": str(self._directory / "worker"),
            "EMS_HTTP": http,
        }
        if orchestrator.token is not None:
            env["EMS_ORCHESTRATOR_TOKEN"] = str(orchestrator.token)
        if self._options.base_config_root is not None:
            env["EMS_BASE_CONFIG_ROOT"] = str(self._options.base_config_root.resolve())
        child = self._child("worker", ["ems_worker.cli.worker", "run"], env)
        self._stack.push_async_callback(child.stop, _WORKER_GRACE_SECONDS)
        await self._add(_child_part(child, healthy=lambda: keeping.answers(http, "/healthz")))
        await _wait_until_ready(child, lambda: keeping.answers(http, "/readyz"))
        return http

    def _child(self, name: str, module: list[str], settings: Mapping[str, str]) -> process.Child:
        # Credentials and addresses of other servers, which our environment may hold, must not reach the parts.
        foreign = ("NATS_", "EMS_NATS_", "EMS_CONTEXT", "EMS_ORCHESTRATOR")
        env = {name: value for name, value in os.environ.items() if not name.startswith(foreign)} | dict(settings)
        command = [sys.executable, "-P", "-m", *module]
        return process.Child(name, command, log=self._directory / "logs" / f"{name}.log", env=env)

    async def _add(self, part: keeping.Part) -> None:
        """Starts a part that ends with the platform, and keeps it running from then on."""
        start = part.start

        async def start_guarded() -> None:
            await start()
            self._guardian.watch(part.pid())

        part.start = start_guarded
        await part.start()
        self._parts.append(part)


def _child_part(child: process.Child, healthy: Callable[[], Awaitable[bool]] | None = None) -> keeping.Part:
    async def start() -> None:
        child.start()

    return keeping.Part(
        child.name,
        child.log,
        pid=lambda: child.pid,
        running=lambda: child.running,
        start=start,
        stop=child.stop,
        healthy=healthy,
    )


async def _wait_until_ready(child: process.Child, probe: Callable[[], Awaitable[bool]]) -> None:
    """Waits until the probe succeeds. Raises PlatformFailed with the end of the log if it doesn't in time."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_READY_SECONDS):
            while child.running:
                if await probe():
                    return
                await asyncio.sleep(_POLL_SECONDS)
    state = "is not ready" if child.running else f"ended with {child.exit_code}"
    raise process.PlatformFailed(f"{child.name} {state}; its log, {child.log}, ends with:\n{child.last_words()}")


async def _is_serving(address: Channel) -> bool:
    """Whether the standard gRPC health service reports SERVING."""
    async with security.channel(address, ()) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=2)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
