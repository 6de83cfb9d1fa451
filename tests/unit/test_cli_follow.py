"""The bar: what it shows on a terminal of any width, and in which colour."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.cli import follow
from tests.unit.test_cli_words import status


@given(
    width=st.integers(20, 200),
    name=st.text("abc-_", min_size=1, max_size=64),
    total=st.integers(1, 10**6),
    failed=st.integers(0, 10**6),
    eta=st.none() | st.floats(0, 10**6),
)
def test_the_count_is_shown_on_a_terminal_of_any_width(
    width: int, name: str, total: int, failed: int, eta: float | None
) -> None:
    """No line is wider than the terminal, and the id is whole, if need be on a line of its own."""
    known = status(experiment_id=name, total=total, counts={"failed": min(failed, total)}, eta_seconds=eta)
    line = follow.fit(width, known)
    parts = [line.name, line.state, "=" * line.bar, line.count, line.details, "10:00:00" if line.elapsed else ""]
    assert len(" ".join(filter(None, parts))) <= width
    assert line.count == f"{min(failed, total):,}/{total:,}"
    assert line.name in (name, "")
    assert line.bar >= 10 or not line.name
    assert line.name or not line.elapsed


def test_a_narrow_terminal_shows_less() -> None:
    """With decreasing width the line loses the times, the id, the unsuccessful jobs, the state, and last the bar."""
    known = status(experiment_id="reef-heat-1c375451b7", counts={"failed": 3, "pending": 7}, eta_seconds=75)
    lines = [follow.fit(width, known) for width in (100, 80, 70, 60, 50, 40, 30, 20, 12, 6)]
    assert [line.name for line in lines] == [*["reef-heat-1c375451b7"] * 4, *[""] * 6]
    details = ["3 failed, 75 s left"] * 3 + ["3 failed", "3 failed, 75 s left", "3 failed", "3 failed"]
    assert [line.details for line in lines] == [*details, "", "", ""]
    assert [line.state for line in lines] == [*["running"] * 8, "", ""]
    assert [line.elapsed for line in lines] == [True, True, *[False] * 8]
    assert [line.bar for line in lines] == [37, 17, 16, 17, 17, 18, 8, 7, 7, 0]


@pytest.mark.parametrize(
    ("changes", "colour"),
    [
        ({"counts": {"completed": 3}}, "green"),
        ({"counts": {"completed": 3, "failed": 1}}, "yellow"),
        ({"state": "failed", "counts": {"failed": 1}}, "red"),
        ({"state": "cancelled"}, "yellow"),
    ],
)
def test_a_bar_is_red_only_if_the_experiment_failed(changes: dict[str, Any], colour: str) -> None:
    """It is green as long as nothing went wrong."""
    assert follow.style(status(**changes)) == colour


@pytest.mark.parametrize(("term", "drawn"), [("xterm", True), ("dumb", False), ("", False)])
def test_only_a_terminal_that_can_draw_gets_a_bar(term: str, drawn: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others get lines."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", term)
    assert isinstance(follow.follower(), follow.BarFollower) is drawn
