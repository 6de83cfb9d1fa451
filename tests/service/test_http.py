"""The probes and the metrics, as a load balancer or Prometheus sees them."""

import contextlib
import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from ems_worker import errors
from ems_worker.adapters import http

PROBLEMS: dict[str, str] = {}


@pytest.fixture
def server() -> Iterator[http.HttpServer]:
    PROBLEMS.clear()
    registry = CollectorRegistry()
    Counter("fish", "Fish seen", registry=registry).inc(3)
    with http.HttpServer("127.0.0.1", 0, registry, unhealthy=dict, unready=lambda: PROBLEMS) as started:
        yield started


def ask(server: http.HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_probe_reports_problems(server: http.HttpServer) -> None:
    """It answers 200 without problems, and otherwise 503 with the problems by part."""
    assert ask(server, "/readyz") == (200, '{"ok": true, "troubles": {}}\n')
    PROBLEMS["broker"] = "not connected"
    code, body = ask(server, "/readyz")
    assert (code, json.loads(body)) == (503, {"ok": False, "troubles": {"broker": "not connected"}})
    assert ask(server, "/healthz")[0] == 200


def test_metrics_are_those_of_the_registry(server: http.HttpServer) -> None:
    """They come in the text format of Prometheus."""
    code, body = ask(server, "/metrics")
    assert code == 200
    assert "fish_total 3.0" in body


def test_another_path_is_not_found(server: http.HttpServer) -> None:
    """The answer is 404, and lists the paths that exist."""
    code, body = ask(server, "/")
    assert code == 404
    assert "/readyz" in body


def test_a_silent_client_does_not_delay_others(server: http.HttpServer) -> None:
    """A connection without a request doesn't keep the next probe waiting."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))):
        assert ask(server, "/healthz")[0] == 200


def test_it_serves_on_ipv6() -> None:
    """An IPv6 address has brackets, and is served like any other."""
    with http.HttpServer("::1", 0, CollectorRegistry(), unhealthy=dict, unready=dict) as server:
        assert server.address.startswith("[::1]:")
        assert ask(server, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_a_wrong_setting(server: http.HttpServer) -> None:
    """The error has the address, and the setting that changes it."""
    host, _, port = server.address.rpartition(":")
    with (
        pytest.raises(errors.SettingsError, match=f"can't listen on 127.0.0.1:{port}: .*EMS_HTTP"),
        http.HttpServer(host, int(port), CollectorRegistry(), unhealthy=dict, unready=dict),
    ):
        pass


def test_leaving_without_entering_is_harmless() -> None:
    """The server can be exited even if entering it failed."""
    http.HttpServer("127.0.0.1", 0, CollectorRegistry(), unhealthy=dict, unready=dict).__exit__(None, None, None)


def connect(server: http.HttpServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_the_number_of_connections_is_limited(server: http.HttpServer) -> None:
    """The oldest connection is closed for a new one, so probes are answered and neither threads nor files grow."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(server)) for _ in range(200)]
        assert ask(server, "/healthz")[0] == 200
        assert threading.active_count() == before
        assert server.open_connections <= http.MAX_CONNECTIONS
        with contextlib.suppress(ConnectionResetError):
            assert idle[0].recv(1) == b""
    assert ask(server, "/healthz")[0] == 200


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
def test_the_duration_of_a_connection_is_limited(
    server: http.HttpServer, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """A client that sends a byte now and then doesn't get more time."""
    monkeypatch.setattr(http, "CONNECTION_SECONDS", 0.5)
    with connect(server) as slow:
        slow.sendall(first)
        slow.settimeout(0.05)
        ended = False
        while not ended:
            try:
                ended = slow.recv(1) == b""
            except TimeoutError:
                if first:
                    slow.sendall(b"x")
            except ConnectionError:
                ended = True


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"x" * 10_000 + b"\r\n\r\n", 431),
        (b"GET /healthz HTTP/1.1\r\n" + b"x:\r\n" * 101 + b"\r\n", 400),
        (b"\xff\r\n\r\n", 400),
        (b"GET /healthz\r\n\r\n", 400),
        (b"POST /healthz HTTP/1.1\r\n\r\n", 405),
        (b"HEAD /healthz HTTP/1.1\r\n\r\n", 200),
        (b"GET /metrics?x=\r\n\xff HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics?name[]=fish_total&\xff HTTP/1.1\r\naccept\r\n\r\n", 200),
    ],
)
def test_any_request_is_answered(server: http.HttpServer, request_: bytes, code: int) -> None:
    """A malformed or oversized request is refused, and the next request is answered."""
    with connect(server) as client:
        client.sendall(request_)
        answer = client.recv(65536)
        assert answer.startswith(f"HTTP/1.1 {code} ".encode())
    assert ask(server, "/healthz")[0] == 200


def test_the_answer_to_head_has_no_body(server: http.HttpServer) -> None:
    """Its Content-Length is that of the body of the answer to GET."""
    with connect(server) as client:
        client.sendall(b"HEAD /healthz HTTP/1.1\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b"Content-Length: 29\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_client_that_leaves_early_is_no_error(server: http.HttpServer, capfd: pytest.CaptureFixture[str]) -> None:
    """A client may leave within its request, or before it reads the answer, and nothing is written to stderr."""
    for sent in (b"", b"GET /healthz", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with connect(server) as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(server, "/metrics")[0] == 200
    assert capfd.readouterr().err == ""


def test_stopping_does_not_wait_for_clients(capfd: pytest.CaptureFixture[str]) -> None:
    """Open connections are closed, and nothing is written to stderr."""
    with (
        contextlib.ExitStack() as stack,
        http.HttpServer("127.0.0.1", 0, CollectorRegistry(), unhealthy=dict, unready=dict) as server,
    ):
        for _ in range(5):
            stack.enter_context(connect(server))
    assert capfd.readouterr().err == ""
