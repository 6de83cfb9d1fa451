"""The documentation says what is so: what is made from the code is current, and what is listed by hand is complete."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import commands, generate, tables
from ems_worker import daemon, errors
from ems_worker.cli import exits
from ems_worker.core.lifecycle.outcome import OUTCOMES
from ems_worker.core.records import PlanDecision
from ems_worker.service import track

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "ems_worker").rglob("*.py"))
OPERATIONS, MONITORING = ((ROOT / f"docs/{name}.md").read_text() for name in ("operations", "monitoring"))
LEVELS = ("debug", "info", "warning", "error")
# Event names that are made of a part and a value, and what they can become.
MADE = {
    "plan.{}": [f"plan.{verdict}" for verdict in PlanDecision],
    "event.{}": [f"event.{verdict}" for verdict in track.DEAD_LETTER_REASONS],
}


def test_generated_pages_are_current() -> None:
    """`make docs` would change nothing."""
    assert generate.outdated() == []


def test_every_command_that_prints_has_json_and_says_what() -> None:
    """Only a server, a schema, which is JSON, and the output of a run go without."""
    options = {
        name: {option for one in command.params for option in one.opts} for _, name, command in commands.commands()
    }
    assert {name for name, known in options.items() if "--json" not in known} == {
        "ems schema",
        "ems logs",
        "ems-worker run",
    }
    assert set(commands.JSON) == {name for name, known in options.items() if "--json" in known}


def test_every_generated_section_is_on_one_page() -> None:
    """None is missing, none is left over."""
    text = "".join(page.read_text() for page in generate.WITH_TABLES)
    assert sorted(re.findall(r"<!-- generated: ([a-z ]+) -->", text)) == sorted(tables.SECTIONS)


def logged() -> Iterator[tuple[str, str]]:
    """(event, level) of every `log.level("event", ...)` in the source."""
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.func.attr in LEVELS
            ):
                for name in names(node.args[0]):
                    yield name, node.func.attr


def names(event: ast.expr) -> list[str]:
    if isinstance(event, ast.Constant):
        return [str(event.value)]
    assert isinstance(event, ast.JoinedStr), ast.dump(event)
    return MADE["".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in event.values)]


def test_every_log_event_is_documented() -> None:
    """With its level, once; and none that is no more."""
    rows = re.findall(r"^\| `([a-z_]+\.[a-z_]+)` \| (debug|info|warning|error) \|", MONITORING, re.M)
    assert set(logged()) - set(rows) == set(), "these need a line in docs/monitoring.md, under Log events"
    assert set(rows) - set(logged()) == set(), "these are no more"
    assert len(rows) == len(set(rows))
    assert len(rows) > 30


def test_every_part_that_readyz_can_report_is_documented() -> None:
    """Each has a row in docs/operations.md."""
    named = {"loop"}
    for path in SOURCES:
        named |= set(re.findall(r"health\.(?:set_problem|watch)\(\"(\w+)\"", path.read_text()))
    assert len(named) > 8
    rows = set(re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", OPERATIONS, re.M))
    assert named - rows == set()


@pytest.mark.parametrize("page", sorted(path.name for path in (ROOT / "docs").glob("*.md")))
def test_links_between_pages_lead_somewhere(page: str) -> None:
    """Files and headings."""
    text = (ROOT / "docs" / page).read_text()
    for link in re.findall(r"\]\((?!https?://)([^)]+)\)", text):
        path, _, heading = link.partition("#")
        target = (ROOT / "docs" / path) if path else ROOT / "docs" / page
        assert target.exists(), link
        if heading:
            titles = re.findall(r"^#+ (.+)$", target.read_text(), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
            assert heading in anchors, link


def test_the_worker_ends_with_the_codes_of_the_table() -> None:
    """`ems-worker run` gives its codes itself: they mean what all commands mean by them."""
    named = (daemon.OK, daemon.USAGE, daemon.BROKER, daemon.MANIFEST)
    assert named == (exits.Exit.OK, exits.Exit.USAGE, exits.Exit.UNREACHABLE, exits.Exit.MANIFEST)
    for kind in (errors.SettingsError, errors.FileUnwritable, errors.BrokerMisconfigured, errors.ManifestUnusable):
        assert exits.of(kind("x")) in named


def test_the_status_codes_of_the_orchestrator_page_are_those_of_the_worker() -> None:
    """Each code has a row, and codes with the same outcome share a row or say that they are treated the same."""
    page = (ROOT / "docs/orchestrator.md").read_text()
    table = page.partition("| code | what the worker does |")[2].partition("\n\n")[0]
    listed = re.findall(r"`([A-Z_]+)`", table)
    assert sorted(listed) == sorted(OUTCOMES)
    for row in table.splitlines():
        outcomes = {OUTCOMES[code] for code in re.findall(r"`([A-Z_]+)`", row)}
        assert len(outcomes) <= 1, row
