"""Puts the orchestrator's parts together and owns their life: what starts when, and what stops in which order."""

import asyncio
import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio  # type: ignore[attr-defined] # its stubs are older
from grpc_reflection.v1alpha import reflection

from ems_worker import errors, settings
from ems_worker.local import process
from ems_worker.local.orchestrator import access, outbox, service, simulation, slots, store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from ems_worker.settings import files as settings_files
from ems_worker.settings import private

_SERVICE = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorClientService"].full_name
# What its data directory has in it.
_OURS = ("lock", "orchestrator.db*", "runs", "grpc.sock", "token")
_RETENTION_NS = 30 * 24 * 3600 * 10**9
_FORGET_EVERY_SECONDS = 3600.0
_CALLS_GRACE_SECONDS = 1.0
_LAST_EVENTS_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """All that can be chosen about an orchestrator."""

    listen: str
    nats: settings.Access
    data_dir: Path
    slots: int
    simulator: simulation.Command
    model_version: str
    max_message_bytes: int
    stop_grace_seconds: float
    # Certificate and key (PEM) to serve by TLS with, and the CA that clients' own certificates must be of.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    # The file of the token that every call has to carry; None: all who can connect may call.
    token: Path | None = None

    @property
    def open(self) -> bool:
        """Whether everybody who can connect may start simulations."""
        return self.socket is None and self.token is None and self.tls_client_ca is None

    @property
    def socket(self) -> Path | None:
        """The Unix socket that it listens on; None: a TCP port."""
        return Path(self.listen.removeprefix("unix:")) if self.listen.startswith("unix:") else None


async def run(options: Options) -> None:
    """Serves until SIGTERM or SIGINT, then ends its simulations. Raises PlatformFailed where it can't start."""
    _own(options)
    # Two orchestrators on one directory would each start the other's runs.
    with process.lock(options.data_dir / "lock", "orchestrator"):
        memory = store.Store(options.data_dir / "orchestrator.db")
        await memory.open()
        try:
            await _serve(options, memory)
        finally:
            await memory.close()


def _own(options: Options) -> None:
    """What is written is ours only, and so is the socket. Raises DirectoryUnusable."""
    os.umask(0o077)  # simulators inherit it
    try:
        private.data_directory(options.data_dir, _OURS)
        private.directory(options.data_dir / "runs")
        if socket := options.socket:
            access.check_socket(socket)
    except errors.FileUnwritable as failed:
        raise process.DirectoryUnusable(str(failed)) from failed


async def _serve(options: Options, memory: store.Store) -> None:
    post = outbox.Outbox(memory, options.nats)
    places = slots.Slots(
        memory,
        count=options.slots,
        directory=options.data_dir / "runs",
        command=options.simulator,
        model_version=options.model_version,
        stop_grace_seconds=options.stop_grace_seconds,
        on_event=post.wake,
    )
    server, alive = _grpc_server(options, memory, places)
    if options.open:
        log.warning("orchestrator.open", listen=options.listen)
    stop = _stop_event()
    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(post.run())
        forgetting = group.create_task(_forget(memory, options.data_dir / "runs"))
        running = group.create_task(places.run())
        await alive.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        log.info("orchestrator.ready", listen=options.listen, slots=options.slots)
        await stop.wait()
        log.info("orchestrator.stopping")
        await alive.enter_graceful_shutdown()
        # The slots first: a STOP that is being answered waits for its run's end.
        await places.close()
        await running
        await server.stop(_CALLS_GRACE_SECONDS)
        post.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                await post.emptied()
        publishing.cancel()
        forgetting.cancel()
    log.info("orchestrator.stopped")


def _grpc_server(
    options: Options, memory: store.Store, places: slots.Slots
) -> tuple[grpc.aio.Server, health_aio.HealthServicer]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.so_reuseport", 0),  # two orchestrators on one port would each get half of the calls
        ],
        interceptors=[access.Tokens(access.read_token(options.token))] if options.token is not None else None,
    )
    answers = service.OrchestratorService(
        memory, places, max_message_bytes=options.max_message_bytes, model_version=options.model_version
    )
    orchestrator_pb2_grpc.add_OrchestratorClientServiceServicer_to_server(answers, server)
    alive = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(alive, server)
    # Its calls can be made by hand, with `buf curl` or grpcurl.
    reflection.enable_server_reflection([_SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    try:
        if options.tls_cert is None or options.tls_key is None:
            server.add_insecure_port(options.listen)
        else:
            server.add_secure_port(
                options.listen, _credentials(options.tls_cert, options.tls_key, options.tls_client_ca)
            )
    except RuntimeError as failed:
        raise process.PlatformFailed(f"the orchestrator can't listen on {options.listen}: {failed}") from failed
    return server, alive


def _credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    settings_files.check_private(key, "is a secret")
    return grpc.ssl_server_credentials(
        [(settings_files.read(key, "the key"), settings_files.read(cert, "the certificate"))],
        root_certificates=None if client_ca is None else settings_files.read(client_ca, "the clients' CA"),
        require_client_auth=client_ca is not None,
    )


async def _forget(memory: store.Store, directory: Path) -> None:
    """Forgets ids that ended 30 days ago; what their simulations wrote stays."""
    while True:
        while expired := await memory.expired(time.time_ns() - _RETENTION_NS):
            for simulation_id in expired:
                await asyncio.to_thread(simulation.Simulation(directory / simulation_id).forget)
            await memory.forget(expired)
        await asyncio.sleep(_FORGET_EVERY_SECONDS)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
