"""docs/state-machine.md, and every other page or table that is made from the code, is what the code says."""

import sys
from enum import StrEnum
from pathlib import Path

import pytest

from docs import generate, states, verbs
from ems_worker.core.lifecycle import job
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentEvent, ExperimentState, PauseOwner
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.settling import Cause
from ems_worker.core.lifecycle.steering import Action, Phase, Verb
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState


def test_every_page_is_current() -> None:
    """`make docs` writes them anew."""
    assert generate.outdated() == []


KINDS = (RunState, RunEvent, ExperimentState, ExperimentEvent, Effect, PauseOwner, Verb, Phase, Action)


@pytest.mark.parametrize("kind", [*KINDS, CancelMode, StopReason, Cause])
def test_every_state_and_event_has_its_remark(kind: type[StrEnum]) -> None:
    """Who moves it and what a crash there means is written beside each member, where the page has it from."""
    assert set(states.remarks(kind)) == {member.value for member in kind}


def test_the_tables_of_verbs_show_every_state_every_owner_and_every_verb() -> None:
    """Each state of an experiment and of a job has a row, as has each owner of a pause and each reason to cancel."""
    standings = [standing for standing, _ in verbs.standings()]
    assert {standing.state for standing in standings} == set(ExperimentState)
    assert {owner for standing in standings for owner in standing.pauses} == set(PauseOwner)
    assert {expanded for _, expanded in verbs.standings()} == {False, True}
    assert {request.verb for request in verbs.REQUESTS} == set(Verb)
    shown = [before.current for _, before in verbs.jobs()]
    assert {run.state for run in shown} == set(RunState)
    # An attempt that another one superseded doesn't represent its job.
    assert {run.stop_reason for run in shown} == {None, *StopReason} - {StopReason.SUPERSEDED}
    assert sum(job.unstarted(before) for _, before in verbs.jobs()) == 1


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
