"""How commands are found: in the groups of the help, by their aliases, and by words of other tools."""

import re

import pytest
import typer.main
import typer.testing

from ems_worker.cli import ems, jobs, worker
from ems_worker.core.lifecycle.tally import Bucket

RUNNER = typer.testing.CliRunner()


def said(*words: str) -> tuple[int, str]:
    """The exit code of `ems` and its output."""
    done = RUNNER.invoke(ems.app, list(words), prog_name="ems", env={"COLUMNS": "100"})
    return done.exit_code, done.output


def test_the_help_lists_every_command_in_its_group() -> None:
    """Groups are in the order of their use, and an alias is beside its command."""
    code, text = said("--help")
    assert code == 0
    titles = re.findall(r"^(\w+):$", text, re.M)
    assert titles == ["Options", *ems.COMMANDS, "Operate"]
    for title, commands in ems.COMMANDS.items():
        section = text.partition(f"\n{title}:\n")[2].partition("\n\n")[0]
        assert [line.split()[0].rstrip(",") for line in section.splitlines()] == list(commands)
    assert "submit, publish" in text
    assert "results, export" in text


def test_no_description_is_cut_in_the_help_on_80_columns() -> None:
    """Each is a sentence that fits."""
    text = RUNNER.invoke(ems.app, ["--help"], prog_name="ems", env={"COLUMNS": "80"}).output
    lines = text.partition("Start:")[2].partition("Exit codes")[0].splitlines()
    assert [line for line in lines if line.endswith("...") or len(line) > 80] == []


@pytest.mark.parametrize(("alias", "name"), ems.ALIASES.items())
def test_an_alias_is_its_command(alias: str, name: str) -> None:
    """Its help has the word that was typed."""
    code, text = said(alias, "--help")
    _, original = said(name, "--help")
    assert code == 0
    assert text.replace(f"ems {alias} ", f"ems {name} ") == original


def test_ems_worker_config_is_kept() -> None:
    """It is `ems-worker settings`."""
    done = RUNNER.invoke(worker.app, ["config", "--json"])
    assert done.exit_code == 0
    assert done.output == RUNNER.invoke(worker.app, ["settings", "--json"]).output


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("stop", ["cancel", "pause"]),
        ("kill", ["cancel"]),
        ("rerun", ["retry"]),
        ("sweep", ["submit"]),
        ("delete", ["cancel", "exclude"]),
        ("kil", ["cancel"]),
        ("statsu", ["show"]),
        ("watc", ["watch"]),
    ],
)
def test_a_word_of_another_tool_names_the_right_verb(word: str, meant: list[str]) -> None:
    """So does a misspelt word. Each verb is told with what it does."""
    code, text = said(word, "reef")
    assert code == 2
    assert f"there is no command '{word}'; did you mean" in text
    named = re.findall(r"^  ems (\w+) +\w", text, re.M)
    assert set(meant) <= set(named)


def test_a_word_that_is_like_none_gets_no_suggestion() -> None:
    """Only the sentence that there is no such command."""
    code, text = said("qqqq")
    assert (code, text.splitlines()[-1]) == (2, "Error: there is no command 'qqqq'")


def test_words_of_other_tools_are_no_commands() -> None:
    """Neither is an alias a command, and what it stands for exists."""
    known = typer.main.get_command(ems.app).commands  # type: ignore[attr-defined]  # it is a group
    assert not known.keys() & (ems.MEANT.keys() | ems.ALIASES.keys())
    assert set(ems.ALIASES.values()) <= known.keys()


def test_the_states_of_jobs_are_those_of_the_core() -> None:
    """The help has them without importing the core's."""
    assert [state.value for state in jobs.JobState] == [bucket.value for bucket in Bucket]
