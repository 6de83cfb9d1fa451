"""docs/state-machine.md, and every other page or table that is made from the code, is what the code says."""

import sys
from pathlib import Path

import pytest

from docs import generate, states
from ems_worker.core.lifecycle.experiment import ExperimentEvent, ExperimentState
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState


def test_every_page_is_current() -> None:
    """`make docs` writes them anew."""
    assert generate.outdated() == []


@pytest.mark.parametrize("kind", [RunState, RunEvent, ExperimentState, ExperimentEvent, Effect])
def test_every_state_and_event_has_its_remark(
    kind: type[RunState | RunEvent | ExperimentState | ExperimentEvent | Effect],
) -> None:
    """Who moves it and what a crash there means is written beside each member, where the page has it from."""
    assert set(states.remarks(kind)) == {member.value for member in kind}


def test_a_page_that_is_old_is_told_and_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --check by the exit code, without writing."""
    page = tmp_path / "page.md"
    page.write_text("old")
    monkeypatch.setattr(generate, "HERE", tmp_path / "docs")
    monkeypatch.setattr(generate, "pages", lambda: iter([(page, "new")]))
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1
    assert page.read_text() == "old"
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    assert page.read_text() == "new"
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 0
