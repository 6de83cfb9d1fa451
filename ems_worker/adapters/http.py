"""/healthz, /readyz and /metrics on one port, served from a thread of its own.

Its event loop isn't the worker's: that one standing still is what /healthz tells. Anybody who reaches the port may open
connections, so their number, size and time are bounded, and a new one is never kept waiting by those that say nothing.
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

# What is wrong, by part; nothing means all is well.
Troubles = Callable[[], Mapping[str, str]]

# From its first byte to the last of the answer.
_CONNECTION_SECONDS: Final = 10.0
# More connections at once, and the oldest is closed: an answer takes milliseconds, so it waits for its client.
_MOST_CONNECTIONS: Final = 32
# Connections that are accepted in one go, and that may wait for it: further ones wait for a second or more.
_ACCEPTED: Final = 16
_BACKLOG: Final = 128
_TURNS_TO_CONNECT: Final = 5
_MOST_HEAD_BYTES: Final = 8192
_MOST_HEADERS: Final = 100
_END: Final = b"\r\n\r\n"
_TEXT, _JSON = "text/plain", "application/json"


class HttpServer:
    """Serves while entered. `unhealthy` and `unready` are asked at each request, from the server's thread."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, unhealthy: Troubles, unready: Troubles
    ) -> None:
        self._host, self._port = host, port
        self._metrics = make_wsgi_app(registry)
        self._probes = {"/healthz": unhealthy, "/readyz": unready}
        # The oldest first.
        self._connections: dict[asyncio.StreamWriter, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "HttpServer":
        """Raises errors.SettingsError where the port can't be had."""
        try:
            listening = _listen(self._host, self._port)
        except OSError as error:
            words = f"http: {self._host}:{self._port} can't be had: {error.strerror}; EMS_HTTP sets another"
            raise errors.SettingsError(words) from error
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
        """host:port, with the port that was given out where 0 was asked for."""
        assert self._thread is not None
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._port}"

    def _run(self, loop: asyncio.AbstractEventLoop, listening: socket.socket) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(self._serve(listening))

    async def _serve(self, listening: socket.socket) -> None:
        server = await asyncio.start_server(self._connected, sock=listening, backlog=_ACCEPTED, limit=_MOST_HEAD_BYTES)
        listening.listen(_BACKLOG)  # asyncio knows one number for both
        try:
            await self._stop.wait()
            # asyncio leaves a connection open that it has accepted and not yet set up when its server closes. So first
            # no more are accepted, and those that were get the turns that this takes.
            asyncio.get_running_loop().remove_reader(listening)
            for _ in range(_TURNS_TO_CONNECT):
                await asyncio.sleep(0)
            while self._connections:
                open_ = dict(self._connections)
                for writer in open_:
                    writer.transport.abort()
                await asyncio.gather(*open_.values())
        finally:
            server.close()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections[writer] = asyncio.create_task(self._converse(reader, writer))
        if len(self._connections) > _MOST_CONNECTIONS:
            oldest = next(iter(self._connections))
            del self._connections[oldest]
            oldest.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # A client that went away, or is slow, is no error of ours.
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                async with asyncio.timeout(_CONNECTION_SECONDS):
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
            return _message(431, _TEXT, b"the request has too many bytes\n")
        first, *lines = head.removesuffix(_END).decode("latin-1").split("\r\n")
        words = first.split(" ")
        if len(words) != 3 or len(lines) > _MOST_HEADERS:
            return _message(400, _TEXT, b"this is no request of HTTP/1\n")
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return _message(405, _TEXT, b"only GET and HEAD\n", "Allow: GET, HEAD")
        reply = self._answer(target, lines)
        return reply.partition(_END)[0] + _END if method == "HEAD" else reply

    def _answer(self, target: str, lines: list[str]) -> bytes:
        path, _, query = target.partition("?")
        if path == "/metrics":
            return self._measured(query, lines)
        if path not in self._probes:
            return _message(404, _TEXT, b"there are /healthz, /readyz and /metrics\n")
        troubles = self._probes[path]()
        body = json.dumps({"ok": not troubles, "troubles": dict(troubles)}).encode() + b"\n"
        return _message(503 if troubles else 200, _JSON, body)

    def _measured(self, query: str, lines: list[str]) -> bytes:
        """In the form that the client accepts, by prometheus_client's own application."""
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/metrics",
            "QUERY_STRING": urllib.parse.quote(query, safe="=&[]%+"),
            "HTTP_ACCEPT": headers.get("accept", ""),
            "HTTP_ACCEPT_ENCODING": headers.get("accept-encoding", ""),
        }
        told: list[Any] = []
        try:
            body = b"".join(self._metrics(environ, lambda status, fields: told.extend((status, fields))))
        except Exception:  # noqa: BLE001 - it reads what a client accepts by its own rules, and trips over some words
            return _message(400, _TEXT, b"this Accept header can't be read\n")
        status, fields = told
        return _message(int(status.split()[0]), "", body, *(f"{name}: {value}" for name, value in fields))


def _listen(host: str, port: int) -> socket.socket:
    if ":" not in host:
        return socket.create_server((host, port))
    both = socket.has_dualstack_ipv6()
    return socket.create_server((host, port), family=socket.AF_INET6, dualstack_ipv6=both)


def _message(code: int, content_type: str, body: bytes, *fields: str) -> bytes:
    lines = [f"HTTP/1.1 {code} {http.HTTPStatus(code).phrase}", *fields]
    if content_type:
        lines.append(f"Content-Type: {content_type}")
    lines += [f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join(lines).encode("latin-1") + _END + body
