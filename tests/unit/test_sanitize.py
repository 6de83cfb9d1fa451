"""What other programs report about a run is limited in size and brought into shape."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import text
from ems_worker.core.documents import sanitize
from ems_worker.core.lifecycle.run import ErrorKind


@pytest.mark.parametrize("value", ["7", None, [], True, math.nan, math.inf, -math.inf, 10**400])
def test_a_value_that_is_no_finite_number_is_none(value: object) -> None:
    """This holds for text, booleans, NaN, infinity, and integers that no float can hold."""
    assert sanitize.number(value) is None


@pytest.mark.parametrize("value", [0, -7, 2.5, 10**30])
def test_finite_numbers_are_kept(value: float) -> None:
    """Integers become floats."""
    assert sanitize.number(value) == float(value)


def test_valid_entries_of_mappings_are_kept() -> None:
    """An invalid metric is None and counts as missing, an invalid artifact is dropped, a missing mapping is empty."""
    assert sanitize.metrics({"a": 1, "b": "x"}) == {"a": 1.0, "b": None}
    assert sanitize.artifacts({"a": "u", "b": 7}) == {"a": "u"}
    assert sanitize.metrics(None) == {}
    assert sanitize.artifacts(None) == {}


@pytest.mark.parametrize("read", [sanitize.metrics, sanitize.artifacts])
@pytest.mark.parametrize("value", ["a", [1], {7: "u"}, {"": "u"}, {"x" * 201: "u"}, {str(n): "u" for n in range(1001)}])
def test_a_value_that_is_no_mapping_or_too_large_is_unreadable(read: object, value: object) -> None:
    """The event is refused as a whole, because what would be dropped could be what matters."""
    assert callable(read)
    with pytest.raises(errors.Unreadable):
        read(value)


def test_long_text_is_cut() -> None:
    """A long text ends with an ellipsis, and a value that isn't text is None."""
    assert text.clip("abcdef", 4) == "abc…"
    assert text.clip("abcd", 4) == "abcd"
    assert text.clip("") is text.clip(7) is text.clip(None) is None


@given(st.text())
def test_text_can_always_be_stored(value: str) -> None:
    """Lone surrogates are replaced, and everything else is kept."""
    kept = text.clip(value + "\ud800")
    assert kept == value.encode("utf-8", "replace").decode() + "?"


@pytest.mark.parametrize(
    ("kind", "message", "expected"),
    [
        ("timeout", "slow", (ErrorKind.TIMEOUT, "slow")),
        ("ERROR_KIND_STOPPED", None, (ErrorKind.STOPPED, None)),
        ("Infeasible", "", (ErrorKind.INFEASIBLE, None)),
        ("oom", "killed", (ErrorKind.SIMULATION, "error_kind 'oom': killed")),
        ("lost", None, (ErrorKind.SIMULATION, "error_kind 'lost'")),
        ("ERROR_KIND_UNSPECIFIED", "x", (ErrorKind.SIMULATION, "x")),
        (None, "x", (ErrorKind.SIMULATION, "x")),
        (7, None, (ErrorKind.SIMULATION, None)),
    ],
)
def test_kinds_of_failure(kind: object, message: object, expected: tuple[ErrorKind, str | None]) -> None:
    """A kind that an orchestrator may not report counts as the simulation's own failure and is named in the message."""
    assert sanitize.failure(kind, message) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("1970-01-01T00:00:01Z", 1000),
        ("2026-01-01T01:00:00.1234567+01:00", 1_767_225_600_123),
        ("2026-01-01T00:00:00", None),
        ("yesterday", None),
        (1_767_225_600, None),
        ("1969-12-31T23:59:59Z", None),
        ("0001-01-01T00:00:00+23:59", None),
    ],
)
def test_times(value: object, expected: int | None) -> None:
    """A time is RFC 3339 with an offset; without one it is ambiguous and counts as missing."""
    assert sanitize.milliseconds(value) == expected


def test_a_line_is_printable() -> None:
    """Control characters and line ends become blanks, and a value that isn't text is an empty line."""
    assert text.single_line("a\nb\x1b[31m\u202ec ä", 100) == "a b [31m c ä"
    assert text.single_line("x" * 50, 10) == "x" * 9 + "…"
    assert text.single_line(None, 10) == text.single_line("", 10) == ""
