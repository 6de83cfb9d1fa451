"""`ems-worker health`: what a container's health check hears."""

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
def _serving(troubles: Mapping[str, str], host: str = "127.0.0.1") -> Iterator[int]:
    """The worker's own endpoints, with these troubles; the port."""
    with http.HttpServer(host, 0, CollectorRegistry(), unhealthy=lambda: troubles, unready=dict) as server:
        yield int(server.address.rpartition(":")[2])


@contextmanager
def _answering(said: bytes) -> Iterator[int]:
    """Something that is no worker: whoever connects hears these bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(4096)
                caller.sendall(said)

        thread = threading.Thread(target=answer)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_healthy_worker_is_zero_and_silence(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Also where it listens on every address, as in a container."""
    with _serving({}, host) as port:
        assert health.ask((host, port)) == exits.Exit.OK
    assert capsys.readouterr().err == ""


def test_an_unhealthy_worker_is_one_with_its_troubles(capsys: pytest.CaptureFixture[str]) -> None:
    """What is wrong is said: it is what `docker inspect` shows."""
    with _serving({"loop": "no beat for 12 s"}) as port:
        assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert "not healthy: loop: no beat for 12 s" in capsys.readouterr().err


def test_no_worker_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listening is no traceback."""
    with _serving({}) as port:
        pass
    assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert f"no worker answers at 127.0.0.1:{port}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n[]", "is not healthy: 404"),
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nlater", "is not healthy: 503"),
        (b"220 mail here\r\n", "no worker answers"),
    ],
)
def test_what_is_no_worker_is_one(said: bytes, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Another program on the port is not taken for a healthy worker."""
    with _answering(said) as port:
        assert health.ask(("127.0.0.1", port)) == exits.Exit.FAILED
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("address", [None, ("127.0.0.1", 0)])
def test_an_address_that_cannot_be_known_is_a_wrong_setting(address: tuple[str, int] | None) -> None:
    """A worker without a fixed port can't be asked."""
    with pytest.raises(errors.SettingsError, match="EMS_HTTP"):
        health.ask(address)
