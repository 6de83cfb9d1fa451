"""The command line of a simulator: its placeholders, filled word by word without a shell."""

import shlex
import subprocess
from typing import Any

import pytest

from ems_worker.local.orchestrator.command import CannotFill, Command

CONFIGURATION = {"lr": 0.1, "opt": {"m": [1, 2], "name": "it's; rm -rf /", "on": True, "off": None}, "kind": "{seed}"}


def filled(text: str, configuration: Any = CONFIGURATION) -> list[str]:
    return Command.parse(text).filled({"config": "/a b/c.yaml", "seed": "7", "output": "/o"}, configuration)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sim -c {config} 's={seed}'", ["sim", "-c", "/a b/c.yaml", "s=7"]),
        ("sim {lr} --m={opt.m} {opt.m.1}", ["sim", "0.1", "--m=[1,2]", "2"]),
        ("sim {opt.on} {opt.off} {opt.name}", ["sim", "true", "null", "it's; rm -rf /"]),
        ("sim {opt}", ["sim", '{"m":[1,2],"name":"it\'s; rm -rf /","on":true,"off":null}']),
        ("""awk '{print $1}' '{"json": 1}' {}""", ["awk", "{print $1}", '{"json": 1}', "{}"]),
        ("sim {{lr}} {{seed}}", ["sim", "{lr}", "{seed}"]),
        ("sim {kind}", ["sim", "{seed}"]),
    ],
)
def test_placeholders_are_replaced_word_by_word(text: str, words: list[str]) -> None:
    """A value stays one word and is never read again; double braces and other braces belong to the program."""
    assert filled(text) == words


def test_args_are_all_values_as_flags() -> None:
    """Each is a word after its name; null is left out; inside a word they are quoted for a shell."""
    flags = ["--lr", "0.1", "--opt.m", "[1,2]", "--opt.name", "it's; rm -rf /", "--opt.on", "true", "--kind", "{seed}"]
    assert filled("sim {args} end") == ["sim", *flags, "end"]
    assert filled("sh -c 'sim {args}'", {"a": "x y"}) == ["sh", "-c", "sim --a 'x y'"]
    assert filled("sim {args}", {}) == ["sim"]


@pytest.mark.parametrize("name", ["momentum", "lr.x", "opt.m.2", "opt.m.x"])
def test_a_value_that_the_configuration_lacks_is_named(name: str) -> None:
    """The run can't be started without it."""
    with pytest.raises(CannotFill, match=rf"no '{name}', which the command line needs as {{{name}}}"):
        filled(f"sim {{{name}}}")


def test_a_value_with_a_nul_character_is_refused() -> None:
    """No command line can have one."""
    with pytest.raises(CannotFill, match="NUL"):
        filled("sim {x}", {"x": "a\0b"})


@pytest.mark.parametrize("text", ["", "  ", "sh 'open"])
def test_an_unusable_command_line_is_refused_at_once(text: str) -> None:
    """An empty command line and one with an open quote are refused before any run starts."""
    with pytest.raises(ValueError, match=r"empty|No closing quotation"):
        Command.parse(text)


def test_a_misspelt_placeholder_is_refused_where_parameters_are_unknown() -> None:
    """Any other name may be one of a plan."""
    with pytest.raises(ValueError, match=r"no {confg}; did you mean {config}\?"):
        Command.parse("sim {confg}")
    assert Command.parse("sim {lr} {learning.rate}").parameters == ("lr", "learning.rate")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sim {lrr}", r"did you mean {lr}\?"),
        ("sim {m}", r"did you mean {opt\.m}\?"),
        ("sim {epochs}", r"{epochs} names no parameter: give its values, such as epochs=1,2,3"),
        ("sim {zz-zz}", r"{zz-zz} names no parameter; there are {config}, .*{lr}, {opt\.m}"),
    ],
)
def test_an_unknown_placeholder_is_refused_where_parameters_are_known(text: str, message: str) -> None:
    """The remedy is a name that there is, or values for it."""
    with pytest.raises(ValueError, match=message):
        Command.parse(text, parameters=["lr", "opt.m"])


def test_a_parameter_may_have_a_name_that_is_nearly_a_placeholder() -> None:
    """Where the parameters are known, `{seeds}` is no misspelt `{seed}`."""
    assert Command.parse("sim {seeds}", parameters=["seeds"]).parameters == ("seeds",)


@pytest.mark.parametrize(
    ("text", "needed", "json"),
    [
        ("sim {config} {seed} {output}", False, False),
        ("sim {lr}", True, False),
        ("sim {args}", True, False),
        ("sim {config.json}", True, True),
    ],
)
def test_the_configuration_is_read_only_if_it_is_needed(text: str, needed: bool, json: bool) -> None:
    """Reading a large one takes longer than starting a process."""
    parsed = Command.parse(text)
    assert (parsed.needs_configuration, parsed.writes_json) == (needed, json)
    assert Command.parse(text, config_format="json").writes_json
    assert not Command.default().needs_configuration


HOSTILE = ["$(echo BAD)", "`echo BAD`", "'; echo BAD; '", '"; echo BAD; "', "\\'; echo BAD #", "a\necho BAD\n", "a b"]


@pytest.mark.parametrize("value", HOSTILE)
@pytest.mark.parametrize(
    "script",
    [
        "printf %s {x}",
        'printf %s "{x}"',
        'printf %s%s "it\'s" {x} | sed "s/^it\'s//"',
        'x={x}; printf %s "$x"',
        "d=$(date); printf %s {x}",
    ],
)
@pytest.mark.parametrize("shell", ["sh -c", "env sh -e -c --", "/bin/sh -euc", "sh -e -o nounset -c"])
def test_a_value_is_never_part_of_a_shell_script(shell: str, script: str, value: str) -> None:
    """The shell gets it as text, in quotes or not."""
    words = filled(f"{shell} {shlex.quote(script)}", {"x": value})
    ran = subprocess.run(words, capture_output=True, text=True, check=True)
    assert ran.stdout.rstrip("\n") == value.rstrip("\n")


@pytest.mark.parametrize(
    "script",
    [
        "echo `echo {x}`",
        'echo "$(echo "{x}")"',
        "cat <<E\n{x}\nE",
        "true # {x}",
        "echo ${x}",
        "echo \\{x}",
        'echo "\\$(a)" {x}',
    ],
)
def test_a_value_that_cannot_be_quoted_fails_the_run(script: str) -> None:
    """Unless no shell gives it a meaning, such as a number."""
    with pytest.raises(CannotFill, match="stands where they can't be quoted: pass it after the script"):
        filled(f"sh -c {shlex.quote(script)}", {"x": "$(echo BAD)"})
    assert filled(f"sh -c {shlex.quote(script)}", {"x": 0.5})[2] == script.replace("{x}", "0.5")


def test_only_the_script_of_a_shell_is_quoted() -> None:
    """What follows it are arguments, and a script file has no script in a word."""
    assert filled("sh -c 'sim $1' sh {x}", {"x": "a b"}) == ["sh", "-c", "sim $1", "sh", "a b"]
    assert filled("sh run.sh -c {x}", {"x": "a b"}) == ["sh", "run.sh", "-c", "a b"]
    assert filled("sim -c {x}", {"x": "a b"}) == ["sim", "-c", "a b"]


@pytest.mark.parametrize("name", ["", "-rf", "a b", "a=b", "a\nb"])
def test_a_name_that_is_no_option_fails_the_run(name: str) -> None:
    """The program would take it for another option."""
    for text in ("sim {args}", "sh -c 'sim {args}'"):
        with pytest.raises(CannotFill, match="can't be the name of an option"):
            filled(text, {name: 1})
    assert filled("sim {args}", {name: None}) == ["sim"]
