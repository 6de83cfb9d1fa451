"""The probes and the metrics as a load balancer or Prometheus sees them."""

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

TROUBLES: dict[str, str] = {}


@pytest.fixture
def server() -> Iterator[http.HttpServer]:
    TROUBLES.clear()
    registry = CollectorRegistry()
    Counter("fish", "Fish seen", registry=registry).inc(3)
    with http.HttpServer("127.0.0.1", 0, registry, unhealthy=dict, unready=lambda: TROUBLES) as one:
        yield one


def ask(server: http.HttpServer, path: str, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(f"http://{server.address}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_a_probe_says_what_is_wrong(server: http.HttpServer) -> None:
    """200 while nothing is, else 503 with the words, by part."""
    assert ask(server, "/readyz") == (200, '{"ok": true, "troubles": {}}\n')
    TROUBLES["broker"] = "not connected"
    code, body = ask(server, "/readyz")
    assert (code, json.loads(body)) == (503, {"ok": False, "troubles": {"broker": "not connected"}})
    assert ask(server, "/healthz")[0] == 200


def test_metrics_are_the_registry(server: http.HttpServer) -> None:
    """In Prometheus' text format."""
    code, body = ask(server, "/metrics")
    assert code == 200
    assert "fish_total 3.0" in body


def test_another_path_says_which_there_are(server: http.HttpServer) -> None:
    """With 404."""
    code, body = ask(server, "/")
    assert code == 404
    assert "/readyz" in body


def test_a_silent_client_holds_up_nobody(server: http.HttpServer) -> None:
    """A connection on which nothing is asked doesn't keep the next probe waiting."""
    host, _, port = server.address.rpartition(":")
    with socket.create_connection((host, int(port))):
        assert ask(server, "/healthz")[0] == 200


def test_it_serves_on_ipv6() -> None:
    """With brackets in its address."""
    with http.HttpServer("::1", 0, CollectorRegistry(), unhealthy=dict, unready=dict) as server:
        assert server.address.startswith("[::1]:")
        assert ask(server, "/healthz")[0] == 200


def test_a_port_that_is_taken_is_a_wrong_setting(server: http.HttpServer) -> None:
    """Told with the address and the setting that changes it."""
    host, _, port = server.address.rpartition(":")
    with (
        pytest.raises(errors.SettingsError, match=f"127.0.0.1:{port} can't be had.*EMS_HTTP"),
        http.HttpServer(host, int(port), CollectorRegistry(), unhealthy=dict, unready=dict),
    ):
        pass


def test_leaving_without_entering_is_harmless() -> None:
    """As after a failure before it served."""
    http.HttpServer("127.0.0.1", 0, CollectorRegistry(), unhealthy=dict, unready=dict).__exit__(None, None, None)


def connect(server: http.HttpServer) -> socket.socket:
    host, _, port = server.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_strangers_who_hold_connections_cost_no_more_than_so_many(server: http.HttpServer) -> None:
    """The oldest is closed for a new one: a probe is answered, and neither threads nor files grow."""
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(server)) for _ in range(200)]
        assert ask(server, "/healthz")[0] == 200
        assert threading.active_count() == before
        assert len(server._connections) <= http._MOST_CONNECTIONS
        with contextlib.suppress(ConnectionResetError):
            assert held[0].recv(1) == b""
    assert ask(server, "/healthz")[0] == 200


@pytest.mark.parametrize("first", [b"", b"GET /healthz HTTP/1.1\r\nX: "])
def test_a_client_has_so_much_time_in_all(
    server: http.HttpServer, monkeypatch: pytest.MonkeyPatch, first: bytes
) -> None:
    """A byte now and then doesn't make it longer."""
    monkeypatch.setattr(http, "_CONNECTION_SECONDS", 0.5)
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
def test_anything_may_come(server: http.HttpServer, request_: bytes, code: int) -> None:
    """It is answered, or refused, and the next one too."""
    with connect(server) as client:
        client.sendall(request_)
        answer = client.recv(65536)
        assert answer.startswith(f"HTTP/1.1 {code} ".encode())
    assert ask(server, "/healthz")[0] == 200


def test_a_head_has_no_body(server: http.HttpServer) -> None:
    """Its length is that of the body it stands for."""
    with connect(server) as client:
        client.sendall(b"HEAD /healthz HTTP/1.1\r\n\r\n")
        answer = client.makefile("rb").read()
    assert b"Content-Length: 29\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


def test_a_client_that_leaves_early_is_no_error(server: http.HttpServer, capfd: pytest.CaptureFixture[str]) -> None:
    """In the middle of its request, or without reading the answer; nothing is written about it."""
    for sent in (b"", b"GET /healthz", b"GET /metrics HTTP/1.1\r\n\r\n"):
        with connect(server) as client:
            client.sendall(sent)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert ask(server, "/metrics")[0] == 200
    assert capfd.readouterr().err == ""


def test_the_end_waits_for_nobody(capfd: pytest.CaptureFixture[str]) -> None:
    """Connections that are open are closed, without a word."""
    with (
        contextlib.ExitStack() as stack,
        http.HttpServer("127.0.0.1", 0, CollectorRegistry(), unhealthy=dict, unready=dict) as server,
    ):
        for _ in range(5):
            stack.enter_context(connect(server))
    assert capfd.readouterr().err == ""
