"""The probes and the metrics as a load balancer or Prometheus sees them."""

import json
import socket
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
