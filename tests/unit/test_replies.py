"""Which subjects the worker sends replies to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.access import replies

PREFIXES = ("_INBOX.", "_INBOX_dash.")
OWN = "_INBOX.worker"


@pytest.mark.parametrize(
    "subject", ["_INBOX.abc", "_INBOX.abc.def", "_INBOX_dash.1", "_INBOX.workers", "_INBOX." + "x" * 249, "_INBOX.é"]
)
def test_an_inbox_under_an_allowed_prefix_gets_its_reply(subject: str) -> None:
    """This includes a subject of the maximum length, and a name that only begins like the worker's own inbox."""
    assert replies.refusal(subject, PREFIXES, OWN) is None


@pytest.mark.parametrize(
    ("subject", "reason"),
    [
        ("", "no reply subject"),
        ("$JS.API.STREAM.DELETE.EMS_RESULTS", "allowed inbox prefixes"),
        ("sim.run_completed", "allowed inbox prefixes"),
        ("ems.experiment.submit", "allowed inbox prefixes"),
        ("_INBOX", "allowed inbox prefixes"),
        ("_INBOXES.a", "allowed inbox prefixes"),
        ("_INBOX_dash", "allowed inbox prefixes"),
        ("_INBOX.worker", "worker's own"),
        ("_INBOX.worker.abc.s1", "worker's own"),
        ("_INBOX." + "x" * 250, "longer than 256"),
        ("_INBOX." + "é" * 125, "longer than 256"),
        ("_INBOX." + "x" * 5_000_000, "longer than 256"),
        ("_INBOX.a b", "white space"),
        ("_INBOX.a\tb", "white space"),
        ("_INBOX.a\x0bb", "white space"),
        ("_INBOX.a\r\nPUB sim.run_completed 2", "white space"),
        ("_INBOX.a\x00", "unprintable"),
        ("_INBOX.a\u2028b", "white space"),
        ("_INBOX.a\u202eb", "unprintable"),
        ("_INBOX.a\udcff", "unprintable"),
        ("_INBOX.", "empty token"),
        ("_INBOX..a", "empty token"),
        (".", "empty token"),
        ("_INBOX.*", "wildcards"),
        ("_INBOX.>", "wildcards"),
        ("_INBOX.a.b*", "wildcards"),
    ],
)
def test_any_other_subject_gets_no_reply_and_a_reason(subject: str, reason: str) -> None:
    """Other subjects include streams, events, plans, the worker's own inboxes, and text that a broker would misread."""
    assert reason in (replies.refusal(subject, PREFIXES, OWN) or "")


def test_without_prefixes_no_reply_is_sent() -> None:
    """An empty setting allows no subject."""
    assert replies.refusal("_INBOX.abc", (), OWN) is not None


@given(st.text(max_size=300))
def test_an_allowed_subject_is_safe_in_a_line_of_the_protocol(text: str) -> None:
    """It is short, without white space, empty tokens or wildcards, and outside the worker's own inbox."""
    subject = f"_INBOX.{text}"
    if replies.refusal(subject, PREFIXES, OWN) is None:
        assert len(subject.encode()) <= 256
        assert subject.split() == [subject]
        assert "" not in subject.split(".")
        assert not set("*>") & set(subject)
        assert not f"{subject}.".startswith(f"{OWN}.")
