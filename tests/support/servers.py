"""Real servers for tests, each a process that can crash and be started again on the same port."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from ems_worker.local import nats_server, ports, process
from tests.support import wait

ROOT = Path(__file__).resolve().parents[2]


class NatsServer(nats_server.NatsServer):
    """The platform's nats-server, with a restart that keeps its port and its store.

    Use it as `async with NatsServer(tmp_path) as server`, or start and stop it yourself. It isn't bound to an event
    loop, so a fixture that isn't async may call `asyncio.run(server.start())`.
    """

    async def restart(self, *, crash: bool = False) -> None:
        """Stops or kills the server, and starts it again at the same address."""
        await (self.kill() if crash else self.stop())
        await self.start()


class Program(process.Child):
    """A command as a process. `async with` starts it, and ends it with all its child processes."""

    def __init__(self, name: str, command: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> None:
        super().__init__(name, command, log=log, env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})})

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop(grace=10)


class GrpcProgram(Program):
    """A Python module that serves gRPC on `target`, the standard health service included.

    `module` gets `--listen TARGET` before `arguments`; `ready()` returns once the health service reports SERVING.
    """

    def __init__(self, module: str, arguments: Sequence[str], *, log: Path, port: int | None = None) -> None:
        self.target = f"{ports.LOOPBACK}:{port or ports.free_port()}"
        super().__init__(module, [sys.executable, "-m", module, "--listen", self.target, *arguments], log=log)

    async def __aenter__(self) -> Self:
        self.start()
        await self.ready()
        return self

    async def ready(self, timeout: float = 20) -> None:
        """Waits until the server answers; the assertion that fails otherwise has the end of the server's log."""
        async with grpc.aio.insecure_channel(self.target, options=[("grpc.max_reconnect_backoff_ms", 100)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def serving() -> bool:
                assert self.running, f"{self.name} ended with {self.exit_code}: {self.last_words()}"
                try:
                    answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
                except grpc.aio.AioRpcError:
                    return False
                return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

            await wait.until(serving, timeout=timeout, what=f"{self.name} to serve")

    async def restart(self, *, crash: bool = False) -> None:
        """Stops or kills the server, and starts it again on the same port."""
        await (self.kill() if crash else self.stop(grace=10))
        self.start()
        await self.ready()


def run_sync(server: NatsServer) -> NatsServer:
    """Starts a server from a fixture that isn't async."""
    asyncio.run(server.start())
    return server
