"""The commands that change experiments, with a client that returns fixed documents."""

import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import typer.testing

from ems_worker import client, errors
from ems_worker.cli import ems, exits
from ems_worker.core.lifecycle.steering import Verb
from tests.support import known
from tests.unit.test_cli_changed import change

PLAN = "experiment_id: reef\nbase_config: {a: 1}\nparameter_space: {a: [1, 2]}\n"


Answer = Callable[[str, dict[str, Any]], dict[str, Any]]


@dataclass
class Worker:
    """What the commands requested: verb, experiment and options. `answer` makes the replies."""

    answer: Answer
    requests: list[tuple[str, str | None, dict[str, Any]]] = field(default_factory=list)


class Client:
    """A client that is connected to nothing."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        """Has nothing to close."""

    def experiments(self, **which: Any) -> AsyncGenerator[dict[str, Any], None]:
        return known.experiments([known.status("reef")], **which)

    def __getattr__(self, verb: str) -> Any:
        async def send(experiment_id: str | None = None, **options: Any) -> dict[str, Any]:
            self._worker.requests.append((verb, experiment_id, options))
            return self._worker.answer(verb, options)

        return send


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose changes have effect at once."""
    worker = Worker(lambda verb, options: change(verb, request=options, dry_run=options["dry_run"]))
    monkeypatch.setattr(client, "EmsClient", lambda *arguments, **options: Client(worker))
    return worker


def run(*arguments: str, answer: str = "") -> typer.testing.Result:
    return typer.testing.CliRunner().invoke(ems.app, arguments, input=answer)


OWN: dict[str, dict[str, Any]] = {
    "pause": {"now": False},
    "resume": {"all": False},
    "cancel": {"drain": False, "where": None},
    "retry": {"where": None},
    "extend": {"replicates": 3, "samples": None, "withdraw": False},
    "set": {"priority": 5},
    "close": {},
    "exclude": {"where": None},
    "include": {"where": None},
}
NEEDED = {"extend": ["--replicates", "3"], "set": ["priority=5"], "exclude": ["--all"]}


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_is_a_command_with_the_same_options(fake: Worker, verb: str) -> None:
    """They are for an experiment or a group, and what isn't given is not sent."""
    flags = ["--dry-run", "--wait", "--json", "--reason=why", "--timeout=3", "--request-id=r-1", "--expect-revision=0"]
    ended = run(verb, "reef", *NEEDED.get(verb, []), *flags)
    assert ended.exit_code == exits.Exit.OK, ended.output
    assert ended.stdout.startswith('{"experiment_id":"reef"')
    own = OWN[verb]
    given = {"reason": "why", "dry_run": True, "wait": True, "timeout": 3.0, "request_id": "r-1", "expect_revision": 0}
    assert fake.requests == [(verb, "reef", {**given, **own})]
    assert run(verb, "--group", "heat", *NEEDED.get(verb, [])).exit_code == exits.Exit.OK
    (_, (_, whom, sent)) = fake.requests
    assert whom is None
    assert sent == {"group": "heat", "dry_run": False, "wait": False, "request_id": sent["request_id"], **own}


@pytest.mark.parametrize(
    ("arguments", "own"),
    [
        ("pause reef --now", {"now": True}),
        ("resume --all", {"all": True}),
        ("cancel reef --drain --where a>1", {"drain": True, "where": "a>1"}),
        ("retry reef --where point==3", {"where": "point==3"}),
        ("extend reef --samples 256 --withdraw", {"replicates": None, "samples": 256, "withdraw": True}),
        (
            "extend reef --add layer.food=150,2.5e2 --add kind=a,null,true",
            {"add": {"layer.food": [150, 250.0], "kind": ["a", None, True]}, "samples": None},
        ),
        (
            "set reef priority=-5 max_concurrent=null max_failed=5%",
            {"priority": -5, "max_concurrent": None, "max_failed": "5%"},
        ),
        ("set reef max_failed=7", {"max_failed": 7}),
    ],
)
def test_the_options_of_a_verb_are_sent(fake: Worker, arguments: str, own: dict[str, Any]) -> None:
    """Values of --add are read as in a plan."""
    ended = run(*arguments.split())
    assert ended.exit_code == exits.Exit.OK, ended.output
    ((_, _, sent),) = fake.requests
    assert {name: sent[name] for name in own} == own


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("cancel", "give an experiment's id, or --group NAME"),
        ("cancel reef --group heat", "give an experiment's id, or --group NAME"),
        ("resume reef --all", "give an experiment's id, or --group NAME"),
        ("pause reef --timeout 3", "--timeout is how long --wait waits"),
        ("set reef", "give a limit, such as priority=5"),
        ("set reef priority", "should be priority=NUMBER"),
        ("set reef budget=3", "should be priority=NUMBER"),
        ("set reef priority=high", "'high' is no whole number"),
        ("set reef priority=5%", "'5%' is no whole number"),
        ("extend reef", "give a plan, or --replicates, --samples or --add"),
        ("extend reef plan.yaml --samples 3", "give a plan, or --replicates, --samples or --add"),
        ("extend reef --add food", "should be PATH=VALUE,VALUE"),
        ("extend reef --add food=", "should be PATH=VALUE,VALUE"),
        ("extend reef --add food=[1", "the values can't be read"),
    ],
)
def test_a_command_that_makes_no_sense_is_not_sent(fake: Worker, arguments: str, message: str) -> None:
    """It is a usage error that names the remedy."""
    ended = run(*arguments.split())
    assert ended.exit_code == exits.Exit.USAGE
    assert message in ended.stderr
    assert fake.requests == []


def test_extend_sends_a_checked_plan_with_its_base(fake: Worker, tmp_path: Path) -> None:
    """The problems of an invalid plan are printed, and nothing is sent."""
    (tmp_path / "base.yaml").write_text("a: 1\n")
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN.replace("base_config: {a: 1}", "base_config_file_path: base.yaml"))
    assert run("extend", "reef", str(plan)).exit_code == exits.Exit.OK
    assert fake.requests[0][2]["plan"] == f"{plan.read_text()}base_config:\n  a: 1\n".encode()
    plan.write_text(PLAN.replace("{a: [1", "{b: [1"))
    ended = run("extend", "reef", str(plan))
    assert (ended.exit_code, len(fake.requests)) == (exits.Exit.INVALID_PLAN, 1)
    assert "nothing was changed" in ended.stderr


@pytest.mark.parametrize("error", [errors.NoAnswer("no answer"), errors.BrokerUnavailable("gone")])
def test_a_change_without_an_answer_can_be_repeated(fake: Worker, error: errors.EmsError) -> None:
    """The message has the id under which the request can be repeated safely; a dry run needs none."""

    def fail(verb: str, options: dict[str, Any]) -> dict[str, Any]:
        raise error

    fake.answer = fail
    ended = run("retry", "reef")
    assert ended.exit_code == exits.of(error)
    assert f"repeating the request is safe with --request-id {fake.requests[0][2]['request_id']}" in ended.stderr
    assert "--request-id" not in run("retry", "reef", "--dry-run").stderr


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ems_worker.cli.change_options._on_terminal", lambda: True)


def counts(number: int) -> Answer:
    """Answers as if so many jobs were cancelled."""
    moved = {"pending": {"cancelled": number}} if number else None
    return lambda verb, options: change(verb, counts=moved, withdrawn=1, dry_run=options["dry_run"])


@pytest.mark.parametrize(
    ("arguments", "number", "asked"),
    [
        ("cancel reef", 1000, False),
        ("cancel reef", 1001, True),
        ("cancel reef", 0, True),  # so many that they are not counted yet
        ("cancel --group heat", 1, True),
        ("cancel --group heat --yes", 1001, False),
        ("cancel reef -y", 1001, False),
        ("cancel reef --dry-run", 1001, False),
        ("pause --group heat", 1001, False),
        ("extend reef --samples 3 --withdraw", 1001, True),
        ("extend reef --samples 3 --withdraw --yes", 1001, False),
        ("extend reef --samples 3", 1001, False),
    ],
)
@pytest.mark.parametrize("agreed", [True, False])
def test_cancelling_much_asks_first(
    fake: Worker, monkeypatch: pytest.MonkeyPatch, arguments: str, number: int, asked: bool, agreed: bool
) -> None:
    """The question comes after what would happen, and without a yes nothing is changed."""
    on_a_terminal(monkeypatch)
    fake.answer = counts(number)
    ended = run(*arguments.split(), answer="y\n" if agreed else "\n")
    assert ("go on? [y/N]" in ended.stderr) is asked
    assert ("reef: would" in ended.stderr) is asked
    changes_made = [options for _, _, options in fake.requests if not options["dry_run"]]
    refused = asked and not agreed
    assert len(changes_made) == (0 if refused or "--dry-run" in arguments else 1)
    assert ended.exit_code == (exits.Exit.FAILED if refused else exits.Exit.OK)
    assert ("nothing was changed" in ended.stderr) is refused


def test_nobody_is_asked_where_nothing_changes(fake: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer of the worker says why."""
    on_a_terminal(monkeypatch)
    fake.answer = lambda verb, options: change(verb, changed=False, reason="it has ended (completed)")
    ended = run("cancel", "reef")
    assert (ended.exit_code, ended.stdout) == (exits.Exit.OK, "reef: nothing changed: it has ended (completed)\n")


def test_without_a_terminal_nobody_is_asked(fake: Worker) -> None:
    """A script is never stopped by a question."""
    fake.answer = counts(10**6)
    assert not sys.stdin.isatty() or not sys.stderr.isatty()
    ended = run("cancel", "--group", "heat")
    assert (ended.exit_code, len(fake.requests)) == (exits.Exit.OK, 1)


@pytest.mark.parametrize("more", [[], ["--all", "--where", "point == 1"]])
def test_excluding_everything_has_to_be_asked_for(fake: Worker, more: list[str]) -> None:
    """A forgotten condition would leave an experiment without results."""
    ended = run("exclude", "reef", *more)
    assert ended.exit_code == exits.Exit.USAGE
    assert "give --all" in ended.output
    assert fake.requests == []
