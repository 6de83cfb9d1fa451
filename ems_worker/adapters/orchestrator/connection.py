"""The connection to the orchestrator: one call with what becomes of it, and a new channel if the old one is silent."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc

from ems_worker import ending, errors
from ems_worker.adapters.orchestrator import causes, security
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.settings import Channel

Reply = TypeVar("Reply")

# After this many calls in a row without an answer, the connection may be half open and is replaced.
_SILENT_CALLS = 3


class Connection:
    """A channel to the orchestrator, and the calls on it. It connects, and reconnects, by itself."""

    def __init__(self, channel: Channel, *, deadline_seconds: float, on_away: Callable[[], None]) -> None:
        """`on_away` is called when a call finds no orchestrator: the one that comes back may be a newer one."""
        self._settings = channel
        self._deadline = deadline_seconds
        self._on_away = on_away
        self._channel = self._open()
        self.stub = pb_grpc.OrchestratorClientServiceStub(self._channel)
        self._closing: set[asyncio.Task[None]] = set()
        # When this channel was opened: earlier calls say nothing about it.
        self._opened = float("-inf")
        self._silent = 0
        # Why the orchestrator was away the last time.
        self._cause: str | None = None

    def ready(self) -> bool:
        """Whether the orchestrator is connected now; if it isn't, starts connecting."""
        return self._channel.get_state(try_to_connect=True) is grpc.ChannelConnectivity.READY

    @property
    def away(self) -> str | None:
        """Why the orchestrator can't be reached; None while it is connected. If it isn't, starts connecting."""
        if self.ready():
            self._cause = None
            return None
        return self._cause or f"{self._settings.target}: {self._channel.get_state().name.lower().replace('_', ' ')}"

    async def call(self, call: Awaitable[Reply]) -> tuple[Reply | None, str, str]:
        """The reply, the name of the status code, and the orchestrator's message."""
        began = asyncio.get_running_loop().time()
        try:
            reply = await call
        except grpc.aio.AioRpcError as error:
            code, details = error.code(), error.details() or ""
            self.note_error(error)
            if code is grpc.StatusCode.UNAVAILABLE:
                self._on_away()
                details = causes.cause(details, self._settings.target)
            self._count_silence(began, code is grpc.StatusCode.DEADLINE_EXCEEDED)
            return None, code.name, details
        except asyncio.CancelledError:
            if ending.of_task():
                raise
            return None, "CANCELLED", "the connection was closed before the answer came"
        self._silent = 0
        return reply, "OK", ""

    def note_error(self, error: grpc.aio.AioRpcError) -> None:
        """Notes why the orchestrator is away, if that is the error."""
        if error.code() is grpc.StatusCode.UNAVAILABLE:
            self._cause = causes.cause(error.details() or "", self._settings.target)

    async def close(self) -> None:
        """Closes the connection at once, also under open calls."""
        for task in list(self._closing):
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        await self._channel.close(grace=None)

    def _count_silence(self, began: float, silent: bool) -> None:
        if not silent:
            self._silent = 0
        elif began >= self._opened:
            self._silent += 1
        if self._silent < _SILENT_CALLS:
            return
        self._silent = 0
        try:
            old, self._channel = self._channel, self._open()
        except errors.SettingsError:
            return  # certificates that are being replaced: the old ones may still work
        self._opened = asyncio.get_running_loop().time()
        self.stub = pb_grpc.OrchestratorClientServiceStub(self._channel)
        # With a grace period for its open calls: closing the channel at once would cancel them.
        task = asyncio.create_task(old.close(grace=self._deadline))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    def _open(self) -> grpc.aio.Channel:
        return security.channel(self._settings, security.OPTIONS)
