"""The metadata in the reply subjects of messages that a consumer delivers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.adapters.jetstream import metadata
from ems_worker.adapters.jetstream.metadata import Metadata

DELIVERY = Metadata(b"S", b"C", 1, 22, 1700000000000000000, 7)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.S.C.1.22.3.1700000000000000000.7",
        "$JS.ACK.hub.ACCHASH.S.C.1.22.3.1700000000000000000.7",
        "$JS.ACK._.ACCHASH.S.C.1.22.3.1700000000000000000.7.random",
    ],
)
def test_a_delivery_is_read_in_every_form_that_servers_write(reply: str) -> None:
    """The forms are plain, with a domain, and with a domain and a token that makes the subject unique."""
    assert metadata.read(reply.encode()) == DELIVERY


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
def test_other_subjects_are_not_deliveries(reply: str) -> None:
    """Subjects with another prefix, another number of tokens, or numbers that no server writes are None."""
    assert metadata.read(reply.encode()) is None


@given(st.text(st.characters(codec="utf-8")))
def test_any_reply_subject_can_be_read(text: str) -> None:
    """Whatever a publisher names as the reply subject, reading it raises no exception."""
    metadata.read(text.encode())
    metadata.read(f"$JS.ACK.{text}".encode())
    metadata.read(("$JS.ACK.S.C." + ".".join(text[:5])).encode())
