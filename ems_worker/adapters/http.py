"""/healthz, /readyz and /metrics on one port, served by a separate thread.

The thread has its own event loop, because /healthz reports when the worker's event loop doesn't respond. Any client
that reaches the port can open connections, so their number, size and duration are limited, and idle connections never
delay a new one.
"""

import asyncio
import contextlib
import http
import json
import socket
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final

from prometheus_client import CollectorRegistry, make_wsgi_app

from ems_worker import errors

# Reports the current problems by part; empty if there are none.
Problems = Callable[[], Mapping[str, str]]

# From the first byte of the request to the last byte of the response.
CONNECTION_SECONDS = 10.0
# Beyond it the oldest connection is closed: a response takes milliseconds, so that one must be waiting for its client.
MAX_CONNECTIONS: Final = 32
# asyncio accepts this many connections at a time; the backlog keeps further ones from having to retry.
_ACCEPTED: Final = 16
_BACKLOG: Final = 128
_TURNS_TO_CONNECT: Final = 5
_MAX_HEAD_BYTES: Final = 8192
_MAX_HEADERS: Final = 100
_END: Final = b"\r\n\r\n"
_TEXT, _JSON = "text/plain", "application/json"


class HttpServer:
    """Serves while entered. Each request to a probe calls `unhealthy` or `unready`, in the server's thread."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, *, unhealthy: Problems, unready: Problems
    ) -> None:
        self._host, self._port = host, port
        self._metrics = make_wsgi_app(registry)
        self._probes = {"/healthz": unhealthy, "/readyz": unready}
        # In the order in which they were opened.
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "HttpServer":
        """Raises errors.SettingsError if the address can't be used."""
        try:
            listening = _listen(self._host, self._port)
        except OSError as error:
            raise errors.SettingsError(
                f"http: can't listen on {self._host}:{self._port}: {error.strerror}; EMS_HTTP sets another address"
            ) from error
        self._port = listening.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(self._loop, listening), name="http", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join()

    @property
    def address(self) -> str:
        """host:port, with the actual port if port 0 was configured."""
        assert self._thread is not None
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    @property
    def open_connections(self) -> int:
        """The number of open connections."""
        return len(self._connections)

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listening))

    async def _serve(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listening, backlog=_ACCEPTED, limit=_MAX_HEAD_BYTES)
        listening.listen(_BACKLOG)  # asyncio uses its `backlog` for both numbers
        try:
            await self._stop.wait()
            # When its server closes, asyncio leaves connections open that it has accepted and not yet set up. So stop
            # accepting first, and let the event loop set up the connections that it has accepted.
            asyncio.get_running_loop().remove_reader(listening)
            for _ in range(_TURNS_TO_CONNECT):
                await asyncio.sleep(0)
            while self._connections:
                connections = dict(self._connections)
                for writer in connections:
                    writer.transport.abort()
                await asyncio.gather(*connections.values())
        finally:
            server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.create_task(self._converse(reader, writer))
        if len(self._connections) > MAX_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client that goes away, or is slow, is not an error.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(CONNECTION_SECONDS):
                    writer.write(await self._reply(reader))
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        finally:
            self._connections.pop(writer, None)
            writer.transport.abort()

    async def _reply(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(_END)
        except asyncio.LimitOverrunError:
            return _message(431, _TEXT, b"the request is too long\n")
        request_line, *lines = head.removesuffix(_END).decode("latin-1").split("\r\n")
        parts = request_line.split(" ")
        if len(parts) != 3 or len(lines) > _MAX_HEADERS:
            return _message(400, _TEXT, b"not an HTTP/1 request\n")
        method, target, _ = parts
        if method not in ("GET", "HEAD"):
            return _message(405, _TEXT, b"only GET and HEAD are allowed\n", "Allow: GET, HEAD")
        reply = self._answer(target, lines)
        return reply.partition(_END)[0] + _END if method == "HEAD" else reply

    def _answer(self, target: str, lines: list[str]) -> bytes:
        path, _, query = target.partition("?")
        if path == "/metrics":
            return self._metrics_reply(query, lines)
        if path not in self._probes:
            return _message(404, _TEXT, b"not found; the paths are /healthz, /readyz and /metrics\n")
        problems = self._probes[path]()
        body = json.dumps({"ok": not problems, "troubles": dict(problems)}).encode() + b"\n"
        return _message(503 if problems else 200, _JSON, body)

    def _metrics_reply(self, query: str, lines: list[str]) -> bytes:
        """The metrics in a format that the client accepts, from prometheus_client's WSGI application."""
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": urllib.parse.quote(query, safe="=&[]%+"),
            "HTTP_ACCEPT": headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": headers.get("accept-encoding", ""),
        }
        started: list[Any] = []
        try:
            body = b"".join(self._metrics(environ, lambda status, fields: started.extend((status, fields))))
        except Exception:  # noqa: BLE001 - it parses Accept headers itself, and raises various errors for bad ones
            return _message(400, _TEXT, b"the Accept header can't be parsed\n")
        status, fields = started
        return _message(int(status.split()[0]), "", body, *(f"{name}: {value}" for name, value in fields))


def _listen(host: str, port: int) -> socket.socket:
    if ":" not in host:
        return socket.create_server((host, port))
    dual_stack = socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=dual_stack)


def _message(code: int, content_type: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}", *fields]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode("latin-1") + _END + body
