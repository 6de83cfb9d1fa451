"""`ems ls`: lines, groups, columns, order."""

import re
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, datetime
from typing import Any, Self

import pytest
import typer.testing

from ems_worker import client
from ems_worker.cli import ems, exits, lists, moments
from tests.support import known

ENDED = {"state": "completed", "finished_at": "2026-11-28T11:00:00.000Z", "progress": 1.0}
GENERATION = {"group": "evolution", "publisher": "engine"}
LISTED = [
    known.status("beta", publisher="ada", tags=["a", "b"]),
    known.status("gen-2", **GENERATION, counts={"completed": 3, "failed": 1}, state="failed", finished_at="x"),
    known.status("alpha", **ENDED, counts={"completed": 4}, group="single"),
    known.status("gen-1", **GENERATION, **ENDED, counts={"completed": 4}),
    known.status("gen-0", **GENERATION),
]


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., typer.testing.Result]:
    """Runs `ems ls`, or another command, with a worker that knows these experiments."""

    class Fake:
        def __init__(self, *arguments: Any, **options: Any) -> None:
            """Connects to nothing."""

        async def __aenter__(self) -> Self:
            return self

        async def __aexit__(self, *exception: object) -> None:
            """Has nothing to close."""

        def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
            asked.append({name: value for name, value in which.items() if value is not None})
            return known.experiments(LISTED, **which)

    monkeypatch.setattr(client, "EmsClient", Fake)
    asked: list[dict[str, Any]] = []

    def run(*arguments: str) -> Any:
        result: Any = typer.testing.CliRunner().invoke(ems.app, arguments)
        result.asked = asked[-1] if asked else None
        return result

    return run


Listed = Callable[..., Any]


def ids(result: Any) -> list[str]:
    return [line.split()[0] for line in result.stdout.splitlines()[1:]]


def test_a_group_is_one_line_where_its_newest_experiment_would_be(listed: Listed) -> None:
    """A group of one is listed like any other experiment."""
    result = listed("ls")
    assert [re.split(" {2,}", line) for line in result.stdout.splitlines()] == [
        ["id", "state", "progress", "jobs", "problems", "group", "publisher", "created", "name"],
        ["beta", "running", "50%", "4", "-", "-", "ada", "2026-11-28T10:00Z", "the beta"],
        [
            *("evolution/", "1 running, 1 failed, 1 completed", "67%", "12", "1 failed", "-", "engine"),
            *("2026-11-28T10:00Z", "3 experiments"),
        ],
        ["alpha", "completed", "100%", "4", "-", "single", "-", "2026-11-28T10:00Z", "the alpha"],
    ]
    assert result.stderr == "NAME/ is a group of experiments: ems show NAME\n"
    assert ids(listed("ls", "--flat")) == ["beta", "gen-2", "alpha", "gen-1", "gen-0"]


def test_a_group_can_be_listed_and_shown(listed: Listed) -> None:
    """Each experiment has its own line then; `show` says what they come to."""
    assert ids(listed("ls", "--group", "evolution")) == ["gen-2", "gen-1", "gen-0"]
    shown = listed("show", "evolution").stdout.splitlines()
    assert shown[:2] == [
        "group evolution: 3 experiments: 1 running, 1 failed, 1 completed",
        "  10 of 12 jobs ended, 1 failed",
    ]
    assert [line.split()[0] for line in shown[4:]] == ["gen-2", "gen-1", "gen-0"]
    assert len(listed("show", "evolution/", "--json").stdout.splitlines()) == 3
    assert [line.split()[0] for line in listed("show", "evolution", "-n", "1").stdout.splitlines()[4:]] == ["gen-2"]


def test_a_list_is_never_cut_silently(listed: Listed) -> None:
    """A message counts what a limit leaves out, or says that there is more."""
    limited = listed("ls", "-n", "1")
    assert (ids(limited), limited.stderr) == (["beta"], "... and 2 more lines: without -n they are all listed\n")
    documents = listed("ls", "-n", "1", "--json")
    assert len(documents.stdout.splitlines()) == 1
    assert documents.stderr == "there are more than 1 experiment: without -n all are listed\n"
    assert listed("ls", "-n", "5", "--json").stderr == ""


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("id", ["alpha", "beta", "gen-0", "gen-1", "gen-2"]),
        ("-id", ["gen-2", "gen-1", "gen-0", "beta", "alpha"]),
        ("problems", ["beta", "alpha", "gen-1", "gen-0", "gen-2"]),
        ("publisher", ["beta", "gen-2", "gen-1", "gen-0", "alpha"]),
        ("-publisher", ["gen-2", "gen-1", "gen-0", "beta", "alpha"]),
    ],
)
def test_a_list_is_sorted_by_any_column(listed: Listed, sort: str, order: list[str]) -> None:
    """What has no value in it comes last."""
    assert ids(listed("ls", "--flat", "--sort", sort)) == order


def test_columns_are_chosen_by_name(listed: Listed) -> None:
    """They come in the order in which they are named; a wrong name is an error with a suggestion."""
    assert listed("ls", "--columns", "state, id,tags").stdout.splitlines()[:2] == [
        "state                             id          tags",
        "running                           beta        a, b",
    ]
    wrong = listed("ls", "--columns", "id,sate")
    assert wrong.exit_code == exits.Exit.USAGE
    assert wrong.stderr.startswith("error: there is no column 'sate'; did you mean state?; there are id, state, ")
    assert listed("ls", "--sort", "x", "--json").exit_code == exits.Exit.USAGE
    assert listed("ls", "--sort", "id", "--json").exit_code == exits.Exit.USAGE


@pytest.mark.parametrize("name", lists.NAMES)
def test_every_column_can_be_shown_and_sorted_by(listed: Listed, name: str) -> None:
    """Those that a group doesn't have are dashes there."""
    result = listed("ls", "--columns", f"id,{name}", "--sort", name)
    assert (result.exit_code, len(ids(result))) == (exits.Exit.OK, 3)


def test_the_worker_is_asked_for_what_the_options_say(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times before now become times."""
    monkeypatch.setattr(moments, "now", lambda: datetime(2026, 11, 28, 12, tzinfo=UTC))
    asked = listed("ls", "--state", "running", "--tag", "t", "--name", "reef", "--since", "36h", "--group", "g").asked
    since = "2026-11-27T00:00:00.000Z"
    assert asked == {"state": "running", "tag": "t", "name": "reef", "since_at": since, "group": "g"}


@pytest.mark.parametrize(
    ("text", "since"),
    [
        ("45s", "2026-11-28T11:59:15.000Z"),
        ("30m", "2026-11-28T11:30:00.000Z"),
        ("2d", "2026-11-26T12:00:00.000Z"),
        ("1 w", "2026-11-21T12:00:00.000Z"),
        ("2026-11-01T10:00+02:00", "2026-11-01T08:00:00.000Z"),
        ("2026-11-01T10:00:00Z", "2026-11-01T10:00:00.000Z"),
    ],
)
def test_a_time_is_a_date_or_so_long_ago(text: str, since: str) -> None:
    """A date without a zone is in the local one."""
    assert moments.since(text, datetime(2026, 11, 28, 12, tzinfo=UTC)) == since


@pytest.mark.parametrize("text", ["", "yesterday", "3", "999999w", "0001-01-01"])
def test_any_other_time_is_an_error(text: str) -> None:
    """So is one that no calendar has."""
    with pytest.raises(exits.Misused, match="should be like 3d"):
        moments.since(text, datetime(2026, 11, 28, 12, tzinfo=UTC))


def test_an_empty_list_says_so(listed: Listed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is on stdout."""
    monkeypatch.setattr(known, "experiments", lambda *arguments, **which: _nothing())
    result = listed("ls")
    assert (result.stdout, result.stderr) == ("", "no experiments\n")


async def _nothing() -> AsyncGenerator[dict[str, Any], None]:
    for nothing in LISTED[:0]:
        yield nothing
