"""Where replies may go."""

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
    """Also one of the longest subject allowed, and one whose name only begins like the worker's."""
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
def test_nothing_else_does_and_the_reason_is_said(subject: str, reason: str) -> None:
    """Streams, events, plans, the worker's own inboxes, and whatever the broker would take for something else."""
    assert reason in (replies.refusal(subject, PREFIXES, OWN) or "")


def test_without_prefixes_nobody_is_answered() -> None:
    """An empty setting allows nothing, rather than everything."""
    assert replies.refusal("_INBOX.abc", (), OWN) is not None


@given(st.text(max_size=300))
def test_whatever_is_allowed_can_be_written_in_a_control_line(text: str) -> None:
    """Any text that passes is one short word of UTF-8, without wildcards, under a prefix and outside the own inbox."""
    subject = f"_INBOX.{text}"
    if replies.refusal(subject, PREFIXES, OWN) is None:
        assert len(subject.encode()) <= 256
        assert subject.split() == [subject]
        assert "" not in subject.split(".")
        assert not set("*>") & set(subject)
        assert not f"{subject}.".startswith(f"{OWN}.")
