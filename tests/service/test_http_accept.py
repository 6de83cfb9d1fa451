"""The Accept header of a request for metrics."""

import urllib.error
import urllib.request

import pytest
from prometheus_client import CollectorRegistry

from ems_worker.adapters import http


def get_metrics(server: http.HttpServer, accept: str) -> int:
    """The status code of a request for metrics with this header."""
    request = urllib.request.Request(f"http://{server.address}/metrics", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@pytest.mark.parametrize(
    ("accept", "code"),
    [
        ("application/openmetrics-text; version=1.0.0", 200),
        ("application/openmetrics-text; version=x", 400),
        ("application/nonsense; q=x", 200),
    ],
)
def test_an_invalid_accept_header_is_a_bad_request(accept: str, code: int) -> None:
    """A header that prometheus_client can't parse is answered with 400, and the server continues."""
    with http.HttpServer("127.0.0.1", 0, CollectorRegistry(), unhealthy=dict, unready=dict) as server:
        assert get_metrics(server, accept) == code
        assert get_metrics(server, "text/plain") == 200
