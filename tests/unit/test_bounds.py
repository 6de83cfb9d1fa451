"""What others say of a run, brought to size and shape."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import bounds
from ems_worker.core.run import ErrorKind


@pytest.mark.parametrize("value", ["7", None, [], True, math.nan, math.inf, -math.inf, 10**400])
def test_what_is_no_finite_number_is_none(value: object) -> None:
    """A text, a truth value, NaN, infinity, or more than a float can hold."""
    assert bounds.number(value) is None


@pytest.mark.parametrize("value", [0, -7, 2.5, 10**30])
def test_numbers_stay(value: float) -> None:
    """Whole ones too, as floats."""
    assert bounds.number(value) == float(value)


def test_mappings_keep_what_is_right() -> None:
    """A bad metric is None, so that it counts as missing; a bad artifact is left out; absent ones are empty."""
    assert bounds.metrics({"a": 1, "b": "x"}) == {"a": 1.0, "b": None}
    assert bounds.artifacts({"a": "u", "b": 7}) == {"a": "u"}
    assert bounds.metrics(None) == {}
    assert bounds.artifacts(None) == {}


@pytest.mark.parametrize("read", [bounds.metrics, bounds.artifacts])
@pytest.mark.parametrize("value", ["a", [1], {7: "u"}, {"": "u"}, {"x" * 201: "u"}, {str(n): "u" for n in range(1001)}])
def test_mappings_that_are_none_or_too_large_are_unreadable(read: object, value: object) -> None:
    """As a whole: what is left out of them could be what matters."""
    assert callable(read)
    with pytest.raises(errors.Unreadable):
        read(value)


def test_words_are_cut() -> None:
    """A long text loses its end and shows that it did; what isn't text is None."""
    assert bounds.words("abcdef", 4) == "abc…"
    assert bounds.words("abcd", 4) == "abcd"
    assert bounds.words("") is bounds.words(7) is bounds.words(None) is None


@given(st.text())
def test_words_can_always_be_stored(text: str) -> None:
    """Lone surrogates don't survive, everything else does."""
    kept = bounds.words(text + "\ud800")
    assert kept == text.encode("utf-8", "replace").decode() + "?"


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
    """Only those that an orchestrator may say; any other is the simulation's own failure and kept in the words."""
    assert bounds.failure(kind, message) == expected


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
    """RFC 3339 with an offset; without one nobody knows which moment is meant."""
    assert bounds.milliseconds(value) == expected


def test_a_line_is_printable() -> None:
    """What a terminal would take for a command, or a line's end, is a blank; no text is an empty line."""
    assert bounds.line("a\nb\x1b[31m\u202ec ä", 100) == "a b [31m c ä"
    assert bounds.line("x" * 50, 10) == "x" * 9 + "…"
    assert bounds.line(None, 10) == bounds.line("", 10) == ""
