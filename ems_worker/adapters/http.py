"""/healthz, /readyz and /metrics on one port, served by the standard library from a thread."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

from ems_worker import errors

# What is wrong, by part; nothing means all is well.
Troubles = Callable[[], Mapping[str, str]]


# A client that sends nothing for so long is hung up on.
_PATIENCE_SECONDS = 10.0
# How soon the end is noticed.
_POLL_SECONDS = 0.1


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread a request: a client that is slow, or silent, must not keep the others' probes from being answered."""

    daemon_threads = True

    def server_bind(self) -> None:
        # Not HTTPServer's: that asks the name service who we are, which may take long and is of no use here.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away is no error of ours."""


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = _PATIENCE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Probes come every few seconds: they don't belong in the log."""


class HttpServer:
    """Serves while entered. `unhealthy` and `unready` are asked at each request, from the server's thread."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, unhealthy: Troubles, unready: Troubles
    ) -> None:
        self._host, self._port = host, port
        self._metrics = make_wsgi_app(registry)
        self._probes = {"/healthz": unhealthy, "/readyz": unready}
        self._server: WSGIServer | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "HttpServer":
        """Raises errors.SettingsError where the port can't be had."""
        try:
            kind = _Server6 if ":" in self._host else _Server
            self._server = make_server(self._host, self._port, self._answer, server_class=kind, handler_class=_Quiet)
        except OSError as error:
            words = f"http: {self._host}:{self._port} can't be had: {error.strerror}; EMS_HTTP sets another"
            raise errors.SettingsError(words) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="http", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    @property
    def address(self) -> str:
        """host:port, with the port that was given out where 0 was asked for."""
        assert self._server is not None
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self._server.server_port}"

    def _answer(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            metrics: Iterable[bytes] = self._metrics(environ, start)
            return metrics
        if path not in self._probes:
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"there are /healthz, /readyz and /metrics\n"]
        troubles = self._probes[path]()
        start("503 Service Unavailable" if troubles else "200 OK", [("Content-Type", "application/json")])
        return [json.dumps({"ok": not troubles, "troubles": dict(troubles)}).encode() + b"\n"]
