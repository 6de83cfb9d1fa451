"""Assembles the parts of the orchestrator, and starts and stops them in order."""

import asyncio
import contextlib
import os
import signal
import socket
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
from ems_worker.local.orchestrator import access, pruning, simulation
from ems_worker.local.orchestrator.command import Command
from ems_worker.local.orchestrator.outbox import Outbox
from ems_worker.local.orchestrator.progress import Progress
from ems_worker.local.orchestrator.service import OrchestratorService
from ems_worker.local.orchestrator.simulators import Simulators
from ems_worker.local.orchestrator.slots import Slots
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from ems_worker.settings import files as settings_files
from ems_worker.settings import private

_SERVICE = orchestrator_pb2.DESCRIPTOR.services_by_name["OrchestratorClientService"].full_name
# The entries of the data directory.
_OURS = ("lock", "orchestrator.db*", "runs", "simulators", "grpc.sock", "token")
_RETENTION_NS = 30 * 24 * 3600 * 10**9
_DELETE_EVERY_SECONDS = 3600.0
_CALLS_GRACE_SECONDS = 1.0
_LAST_EVENTS_SECONDS = 3.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Options:
    """The options of an orchestrator."""

    listen: str
    nats: settings.Access
    data_dir: Path
    slots: int
    simulator: Command
    model_version: str
    max_message_bytes: int
    stop_grace_seconds: float
    # Certificate and key (PEM) of the server, and the CA that issues the certificates of clients.
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    # The file with the token that every call needs; None: no token is needed.
    token: Path | None = None
    # How long the directories of runs are kept after their end; None: what simulations wrote is kept for ever.
    retention_seconds: float | None = None

    @property
    def open(self) -> bool:
        """Whether everyone who can connect may start simulations."""
        return self.socket is None and self.token is None and self.tls_client_ca is None

    @property
    def socket(self) -> Path | None:
        """The path of the Unix socket to listen on; None for a TCP port."""
        return Path(self.listen.removeprefix("unix:")) if self.listen.startswith("unix:") else None


async def run(options: Options) -> None:
    """Serves until SIGTERM or SIGINT, then interrupts its simulations. Raises PlatformFailed if it can't start."""
    _make_private(options)
    # Two orchestrators on the same directory would start each other's runs.
    with process.lock(options.data_dir / "lock", "orchestrator"):
        store = Store(options.data_dir / "orchestrator.db")
        await store.open()
        try:
            await _serve(options, store)
        finally:
            await store.close()


def _make_private(options: Options) -> None:
    """Closes the directories, the socket and all new files to other users. Raises DirectoryUnusable."""
    os.umask(0o077)  # simulators inherit it
    try:
        private.data_directory(options.data_dir, _OURS)
        private.directory(options.data_dir / "runs")
        if path := options.socket:
            access.check_socket(path)
    except errors.FileUnwritable as failed:
        raise process.DirectoryUnusable(str(failed)) from failed


async def _serve(options: Options, store: Store) -> None:
    outbox = Outbox(store, options.nats)
    simulators = Simulators(options.data_dir, options.simulator, options.model_version)
    slots = Slots(
        store,
        count=options.slots,
        host=socket.gethostname(),
        directory=options.data_dir / "runs",
        simulators=simulators,
        stop_grace_seconds=options.stop_grace_seconds,
        on_event=outbox.wake,
    )
    server, health_service = _grpc_server(options, store, slots, simulators)
    if options.open:
        log.warning("orchestrator.open", listen=options.listen)
    stop = _stop_event()
    await slots.recover()
    async with asyncio.TaskGroup() as group:
        publishing = group.create_task(outbox.run())
        deleting = group.create_task(_delete_expired(store, options))
        reporting = group.create_task(Progress(slots, outbox.publish_once).run())
        running = group.create_task(slots.run())
        await health_service.set(_SERVICE, health_pb2.HealthCheckResponse.SERVING)
        await server.start()
        log.info("orchestrator.ready", listen=options.listen, slots=options.slots)
        await stop.wait()
        log.info("orchestrator.stopping")
        await health_service.enter_graceful_shutdown()
        # The slots come first: a pending STOP waits for the end of its run.
        await slots.close()
        await running
        await server.stop(_CALLS_GRACE_SECONDS)
        outbox.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_EVENTS_SECONDS):
                await outbox.emptied()
        for task in (publishing, deleting, reporting):
            task.cancel()
    log.info("orchestrator.stopped")


def _grpc_server(
    options: Options, store: Store, slots: Slots, simulators: Simulators
) -> tuple[grpc.aio.Server, health_aio.HealthServicer]:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.so_reuseport", 0),  # otherwise two orchestrators on the same port would share the calls
        ],
        interceptors=[access.Tokens(access.read_token(options.token))] if options.token is not None else None,
    )
    service = OrchestratorService(
        store,
        slots,
        simulators,
        runs=options.data_dir / "runs",
        max_message_bytes=options.max_message_bytes,
        model_version=options.model_version,
    )
    orchestrator_pb2_grpc.add_OrchestratorClientServiceServicer_to_server(service, server)
    health_service = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health_service, server)
    # Reflection lets people make calls by hand, with `buf curl` or grpcurl.
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
    return server, health_service


def _credentials(cert: Path, key: Path, client_ca: Path | None) -> grpc.ServerCredentials:
    settings_files.check_private(key, "is a secret")
    return grpc.ssl_server_credentials(
        [(settings_files.read(key, "the key"), settings_files.read(cert, "the certificate"))],
        root_certificates=None if client_ca is None else settings_files.read(client_ca, "the clients' CA"),
        require_client_auth=client_ca is not None,
    )


async def _delete_expired(store: Store, options: Options) -> None:
    """Deletes runs that ended 30 days ago, again and again; the output of their simulations has a retention of its own.

    What interrupted starts of runs wrote is deleted too.
    """
    directory = options.data_dir / "runs"
    while True:
        if options.retention_seconds is not None:
            before_ns = time.time_ns() - int(options.retention_seconds * 1e9)
            pruned = await asyncio.to_thread(pruning.prune, options.data_dir, before_ns)
            if pruned.runs:
                log.info("runs.pruned", runs=pruned.runs, bytes=pruned.bytes)
        await asyncio.to_thread(simulation.delete_discarded, directory)
        while expired := await store.expired(time.time_ns() - _RETENTION_NS):
            for simulation_id in expired:
                await asyncio.to_thread(simulation.Simulation(directory / simulation_id).forget)
            await store.forget(expired)
        await asyncio.sleep(_DELETE_EVERY_SECONDS)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop
