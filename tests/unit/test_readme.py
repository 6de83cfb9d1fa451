"""The README says what is so: its plan, its error message, its commands and its links."""

import html
import re
from pathlib import Path

import pytest

from ems_worker.cli import ems, plans, publish, validation, worker

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()


def fenced(language: str, containing: str) -> str:
    """The first block of this language that contains the text."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
    return next(str(text) for kind, text in blocks if kind == language and containing in text)


def plan_file(text: str) -> plans.PlanFile:
    return plans.PlanFile("plan.yaml", text.encode(), ROOT)


def test_its_plan_is_valid() -> None:
    """As it stands, put beside the README."""
    checked = plans.check(plan_file(fenced("yaml", "# plan.yaml")))
    assert (checked.count.points, checked.count.jobs) == (4, 12)


def test_its_error_message_is_what_the_command_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Word for word, with the line and the mark."""
    misspelt = fenced("yaml", "# plan.yaml").replace("initial_food_count", "initial_fod_count")
    assert validation.validated(plan_file(misspelt), json=False) is None
    said = capsys.readouterr().err
    assert said.startswith(fenced("", "initial_fod_count"))


def test_its_commands_exist() -> None:
    """Each `$ ems...` line names a command that there is."""
    named = set(re.findall(r"^\$ (ems(?:-publish|-worker)?)(?: ([a-z]+))?\b", README, re.M))
    known = {("ems-publish", "")}
    for name, app in (("ems", ems.app), ("ems-worker", worker.app)):
        for command in app.registered_commands:
            assert command.callback is not None
            known.add((name, command.name or command.callback.__name__))
    assert {(name, "" if name == "ems-publish" else verb) for name, verb in named} <= known
    assert len(named) > 5
    assert len(publish.app.registered_commands) == 1


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_its_links_lead_somewhere(page: str) -> None:
    """Every relative link is a file of this repository."""
    links = re.findall(r"\]\((?!https?://)([^)#]*)", (ROOT / page).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_its_picture_shows_what_the_tutorial_shows() -> None:
    """The table of the recording is that of the page, whose commands are run by other tests."""
    drawn = (ROOT / "docs/images/run.svg").read_text()
    # Spaces are places in the picture.
    picture = "".join(html.unescape(re.sub(r"<[^>]+>", "", drawn)).split())
    tutorial = (ROOT / "docs/tutorial.md").read_text()
    table = re.search(r"^point  n  growth  catch.*?^n: completed", tutorial, re.M | re.S)
    assert table is not None
    for line in table[0].splitlines()[:-1]:
        assert "".join(line.split()) in picture, line
    assert re.findall(r"https?://[^\s\"]+", drawn) == ["http://www.w3.org/2000/svg"]
