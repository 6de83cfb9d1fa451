"""docs/state-machine.md is what the tables in the code say."""

import runpy
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = runpy.run_path(str(DOCS / "generate.py"))


def test_the_page_is_current() -> None:
    """`make docs` writes it anew."""
    assert (DOCS / "state-machine.md").read_text() == PAGE["text"]()


def test_every_state_and_event_has_its_remark() -> None:
    """Who moves it and what a crash there means is written beside each member, where the page has it from."""
    for kind in (PAGE["RunState"], PAGE["RunEvent"], PAGE["ExperimentState"], PAGE["ExperimentEvent"], PAGE["Verdict"]):
        assert set(PAGE["remarks"](kind)) == {member.value for member in kind}


@pytest.mark.parametrize(("page", "code"), [("as it is", 0), ("# Other\n", 1)])
def test_the_check_says_whether_it_is_current(
    page: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its exit code, without writing."""
    target = tmp_path / "state-machine.md"
    target.write_text(PAGE["text"]() if page == "as it is" else page)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    monkeypatch.setitem(PAGE["main"].__globals__, "TARGET", target)
    before = target.read_text()
    assert PAGE["main"]() == code
    assert target.read_text() == before


def test_it_is_written_where_it_belongs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, in place of what was there."""
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    monkeypatch.setitem(PAGE["main"].__globals__, "TARGET", tmp_path / "page.md")
    assert PAGE["main"]() == 0
    assert (tmp_path / "page.md").read_text() == PAGE["text"]()
