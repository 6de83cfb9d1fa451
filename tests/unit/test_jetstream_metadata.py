"""Reply subjects of messages that a consumer delivers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.adapters.jetstream import metadata
from ems_worker.adapters.jetstream.metadata import Metadata

SAID = Metadata("S", "C", 1, 22, 1700000000000000000, 7)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.S.C.1.22.3.1700000000000000000.7",
        "$JS.ACK.hub.ACCHASH.S.C.1.22.3.1700000000000000000.7",
        "$JS.ACK._.ACCHASH.S.C.1.22.3.1700000000000000000.7.random",
    ],
)
def test_a_delivery_is_read_in_every_form_the_server_writes(reply: str) -> None:
    """Plain, in a domain, and in a domain with a token that makes it unique."""
    assert metadata.read(reply) == SAID


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "x",
        "$JS.API.STREAM.DELETE.EMS_PLANS",
        "$JS.ACK.S.C.1.22.3.1700000000000000000",
        "$JS.ACK.S.C.1.22.3.1700000000000000000.7.8",
        "$JS.ACK._.A.S.C.1.22.3.17.7.random.more",
        "$JS.NAK.S.C.1.22.3.1700000000000000000.7",
        "JS.ACK.S.C.1.22.3.1700000000000000000.7.x",
        "$JS.ACK.S.C.one.22.3.1700000000000000000.7",
        "$JS.ACK.S.C.1.-22.3.1700000000000000000.7",
        "$JS.ACK.S.C.1.٢٢.3.1700000000000000000.7",
        "$JS.ACK.S.C.1.22.3.1700000000000000000." + "9" * 5000,
        "." * 1_000_000,
    ],
)
def test_anything_else_is_no_delivery(reply: str) -> None:
    """Other subjects, other counts of tokens, and numbers that no server writes."""
    assert metadata.read(reply) is None


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    """Whatever a publisher names as reply subject."""
    metadata.read(text)
    metadata.read(f"$JS.ACK.{text}")
    metadata.read("$JS.ACK.S.C." + ".".join(text[:5]))
