"""A TCP proxy with the faults of a network: each direction can be stalled, delayed, dropped or cut."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Self

_BLOCK = 65536
_BLOCKS = 64


class Way:
    """One direction of all connections: `up` to the server, or `down` to the client. Faults last until `heal`."""

    def __init__(self) -> None:
        self._delay = 0.0
        self._dropping = False
        self._flowing = asyncio.Event()
        self._flowing.set()
        self.pipes: set[_Pipe] = set()

    def stall(self) -> None:
        """Stops all traffic; what is sent meanwhile arrives after `heal`."""
        self._flowing.clear()

    def delay(self, seconds: float) -> None:
        """Delays all traffic by so many seconds."""
        self._delay = seconds

    def drop(self) -> None:
        """Silently drops what is sent from now on. The open connections stay dead after `heal`."""
        self._dropping = True
        for pipe in self.pipes:
            pipe.dead = True

    def cut(self) -> None:
        """Sends the receiver an end of stream on each open connection; the sender doesn't notice."""
        for pipe in self.pipes:
            pipe.end()

    def heal(self) -> None:
        """Ends all faults; connections that met a drop or a cut stay dead."""
        self._delay, self._dropping = 0.0, False
        self._flowing.set()

    @property
    def dropping(self) -> bool:
        """Whether traffic is dropped now."""
        return self._dropping

    async def passage(self, sent_at: float) -> None:
        """Returns when data that was sent at this time may arrive."""
        wait = sent_at + self._delay - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        await self._flowing.wait()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, way: Way, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        self._way, self._source, self._target = way, source, target
        self._blocks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_BLOCKS)
        self.dead = way.dropping

    def end(self) -> None:
        self.dead = True
        with contextlib.suppress(OSError, RuntimeError):  # the target may be closed already
            self._target.write_eof()

    async def run(self) -> None:
        self._way.pipes.add(self)
        writing = asyncio.create_task(self._write())
        try:
            with contextlib.suppress(OSError):
                while data := await self._source.read(_BLOCK):
                    if not self.dead:
                        await self._blocks.put((asyncio.get_running_loop().time(), data))
            if not self.dead:
                await self._blocks.put((0.0, b""))
                await writing
        finally:
            writing.cancel()
            self._way.pipes.discard(self)

    async def _write(self) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            while True:
                sent_at, data = await self._blocks.get()
                await self._way.passage(sent_at)
                if not data:
                    self._target.write_eof()
                    return
                if not self.dead:
                    self._target.write(data)
                    await self._target.drain()


class Proxy:
    """`async with Proxy(target) as proxy`: clients connect to `proxy.port` and reach the server at `target()`.

    It runs on the event loop of the test. While the server is away, the proxy refuses connections as well.
    """

    def __init__(self, target: Callable[[], int]) -> None:
        """`target` returns the server's port, which need not be known before the first connection."""
        self._target = target
        # The number of connections so far.
        self.made = 0
        self._connections: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        self.up, self.down = Way(), Way()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = int(self._server.sockets[0].getsockname()[1])
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._server.close()
        connections = list(self._connections)
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def heal(self) -> None:
        """Ends the faults of both directions."""
        self.up.heal()
        self.down.heal()

    def cut(self) -> None:
        """Resets every open connection at both ends."""
        for writers in self._connections.values():
            for writer in writers:
                writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target())
        except OSError:
            _reset(writer)
            return
        self.made += 1
        self._connections[task] = [writer, far_writer]
        pipes = [_Pipe(self.up, reader, far_writer), _Pipe(self.down, far_reader, writer)]
        try:
            await asyncio.gather(*(pipe.run() for pipe in pipes))
        except asyncio.CancelledError:  # asyncio.streams would log it as an error of the callback
            pass
        finally:
            del self._connections[task]
            for end in (writer, far_writer):
                end.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Answers like a port on which nothing listens."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    writer.transport.abort()
