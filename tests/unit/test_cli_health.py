"""`ems-worker health`: the exit code and output that a container's health check gets."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest
from prometheus_client import CollectorRegistry

from ems_worker import errors
from ems_worker.adapters import http
from ems_worker.cli import exits, health


@contextmanager
def _serving(problems: Mapping[str, str], host: str = "127.0.0.1") -> Iterator[int]:
    """Serves the worker's HTTP endpoints, which report these problems; yields the port."""
    with http.HttpServer(host, 0, CollectorRegistry(), unhealthy=lambda: problems, unready=dict) as server:
        yield int(server.address.rpartition(":")[2])


@contextmanager
def _answering(response: bytes) -> Iterator[int]:
    """Serves one connection with these bytes, as a program that is not a worker; yields the port."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(response)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_healthy_worker_is_exit_code_0_without_output(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A healthy worker gives exit code 0, also if it listens on every address, as it does in a container."""
    with _serving({}, host) as port:
        assert health.ask((host, port)) == exits.Exit.OK
    assert capsys.readouterr().err == ""


def test_an_unhealthy_worker_is_exit_code_1_with_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    """The output, which `docker inspect` shows, names the problems."""
    with _serving({"loop": "no beat for 12 s"}) as port:
        assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert "not healthy: loop: no beat for 12 s" in capsys.readouterr().err


def test_no_worker_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    """If nothing listens at the address, a message says so."""
    with _serving({}) as port:
        pass
    assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert f"no worker answers at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("response", "message"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "is not healthy: 404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater", "is not healthy: 503"),
        (b"220 mail here\r\n", "no worker answers"),
    ],
)
def test_another_program_is_not_a_healthy_worker(
    response: bytes, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another program on the worker's port gives exit code 1, whatever it answers."""
    with _answering(response) as port:
        assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("address", [None, ("127.0.0.1", 0)])
def test_a_worker_without_a_fixed_port_can_not_be_checked(address: tuple[str, int] | None) -> None:
    """If the HTTP port is disabled or chosen at start, the error names the setting to change."""
    with pytest.raises(errors.SettingsError, match="EMS_HTTP"):
        health.ask(address)
