"""The short message that says why the orchestrator can't be reached."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.adapters.orchestrator import causes

ALL = "failed to connect to all addresses; last error: "


@pytest.mark.parametrize(
    ("details", "cause"),
    [
        (
            f"{ALL}UNKNOWN: ipv4:127.0.0.1:25051: Failed to connect to remote host: Connection refused",
            "127.0.0.1:25051: connection refused",
        ),
        (
            f"{ALL}UNKNOWN: ipv4:10.0.0.1:1: Failed to connect to remote host: connect: No route to host (113)",
            "10.0.0.1:1: no route to host",
        ),
        (
            f"{ALL}UNKNOWN: ipv6:%5B::1%5D:25051: Failed to connect to remote host: Connection refused",
            "[::1]:25051: connection refused",
        ),
        ("Socket closed", "there:1: socket closed"),
        ("recvmsg:Connection reset by peer", "there:1: recvmsg:Connection reset by peer"),
        ("", "there:1: no answer"),
    ],
)
def test_a_cause_is_an_address_and_its_problem(details: str, cause: str) -> None:
    """The prefixes of gRPC's message are removed, and our target stands in for a missing address."""
    assert causes.cause(details, "there:1") == cause


@given(st.text(max_size=3000))
def test_a_cause_is_one_short_line(details: str) -> None:
    """The length and the characters of a cause are limited, whatever the other end sends."""
    cause = causes.cause(details, "there:1")
    assert 0 < len(cause) <= causes.MAX_CHARACTERS
    assert cause.isprintable()
