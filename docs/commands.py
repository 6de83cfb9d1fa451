"""docs/cli.md, made from the commands themselves."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import typer.main

from docs import tables
from ems_worker import settings
from ems_worker.cli import ems, publish, worker

_HEAD: Final = """# The commands

Every command with its arguments and options. This page is generated from the code by `make docs`; `--help` after any
command prints the same.

`ems` is for people and scripts that work with experiments, `ems-worker` for whoever runs the worker. `ems-publish` is
`ems submit` under its first name, and `ems-conformance` has [a page of its own](conformance.md).
[Steering](steering.md) explains the commands that change experiments with examples, and [operations](operations.md)
those of `ems-worker`.

- `-h` or `--help` prints the help of a command, `--version` that of the program.
- `--server` and `--context` say [which broker](connecting.md) to use; a platform of `ems up` on this machine is found
  without them.
- Results go to stdout, everything else to stderr. Ctrl-C ends a command with exit code 130; if something goes on
  without it, it says what.
- `NO_COLOR=1` turns colours off.
"""
_COMPLETION: Final = """## Completion in the shell

`ems --install-completion` makes bash, zsh, fish and PowerShell complete commands, options, and the ids of experiments
and runs: the broker is asked for them while you type, for a second at most. `ems --show-completion` prints the script
instead. Whatever goes wrong, nothing is completed and nothing is said.
"""
_JSON_HEAD: Final = """## JSON

With `--json`, a command prints documents for programs, one per line, and nothing else on stdout. `ems schema NAME`
prints the JSON Schema of those that have a name such as `ems.status.v1`. Readers must tolerate further keys.
"""
# What --json prints, by command. A test compares the names with the commands that have the option.
JSON: Final[Mapping[str, str]] = {
    "ems up": "when all is ready: `nats_url`, `context`, `orchestrator`, `http`, `data_dir`, `manifest`",
    "ems down": "`data_dir`, and `continues`, the number of runs that go on with the next start",
    "ems doctor": "for each check: `check`, `verdict` (ok, warn, fail, unknown), `seen`, `remedy`",
    "ems validate": "an `ems.decision.v1`",
    "ems points": "for each point, or with `--jobs` for each job, a row as with `--format jsonl`",
    "ems submit": "an `ems.decision.v1`; with `--dry-run` with `estimate`; with `--wait` then the last `ems.status.v1`",
    "ems-publish": "the same as `ems submit`",
    "ems run": "an `ems.decision.v1`, then the last `ems.status.v1`",
    "ems reproduce": "`reproduces`, `experiment_id`, `agree`, `same`, `different`, `missing`, `examples`; "
    "with `--no-wait` an `ems.decision.v1`",
    "ems rm": "an `ems.change.v1` for each experiment",
    "ems plan": "`experiment_id`, `content`",
    "ems archive": "`experiment_id`, `file`, `attempts`, `files`, `bytes`",
    "ems artifacts": "for each file: `simulation_id`, `path`, `bytes`, `modified_at`, `artifact`, `uri`",
    "ems download": "for each file: `simulation_id`, `path`, `file`, `bytes`, `result`",
    "ems ls": "an `ems.status.v1` for each experiment",
    "ems show": "an `ems.status.v1` with the further keys of `ems.api.get`",
    "ems watch": "each `ems.status.v1` as it arrives",
    "ems jobs": "an `ems.result.v1` for each job",
    "ems runs": "an `ems.result.v1` for each run",
    "ems results": "for each job a row as with `--format jsonl`",
    "ems config": "`simulation_id`, `seed`, `config_sha`, `computed_sha`, `content`",
    "ems dlq ls": "for each dead letter: `seq`, `kind`, `at`, `subject`, `reason`, `size`, and where it was",
    "ems dlq show": "the same with `data`",
    "ems dlq replay": "for each dead letter: `seq`, `sent_as` (`stream`, `seq`)",
    "ems dlq drop": "for each dead letter: `seq`, `dropped`",
    "ems-worker health": "`healthy`, `reason`",
    "ems-worker settings": "for each setting: `name`, `value`, `source`, `env`, `flag`, `default`, "
    "`unit`, `constraint`, `description`",
    "ems-worker prune": "`directory`, `runs`, `bytes` of files that were deleted; then for each experiment "
    "`experiment_id`, `finished_at`",
    "ems-worker backup": "`file`, `experiments`, `runs`, `ended_runs`",
    "ems-worker restore": "`file`, `experiments`, `runs`, `ended_runs`, `previous`",
    "ems-worker provision": "for each stream: `name`, `created`",
    **{
        f"ems {verb}": "an `ems.change.v1`; with `--group` an `ems.changes.v1`"
        for verb in ("extend", "pause", "resume", "cancel", "retry", "set", "close", "exclude", "include")
    },
}
# The options of `ems-worker` that are settings have a table of their own.
_SETTINGS: Final = frozenset(setting.name for setting in settings.describe())
# Those of nearly all commands are described once, at the top.
_COMMON: Final = frozenset({"server", "context", "version"})
_PROGRAMS: Final = {"ems": ems.app, "ems-publish": publish.app, "ems-worker": worker.app}


def commands() -> Iterator[tuple[str, str, Any]]:
    """Every command by its full name, after its group."""
    for program, app in _PROGRAMS.items():
        yield from _under(program, program, typer.main.get_command(app))


def _under(name: str, panel: str, command: Any) -> Iterator[tuple[str, str, Any]]:
    if not hasattr(command, "commands"):
        yield panel, name, command
        return
    for member_name, member in command.commands.items():
        if not member.hidden:
            yield from _under(f"{name} {member_name}", getattr(member, "rich_help_panel", None) or panel, member)


def page() -> str:
    """The text of docs/cli.md."""
    sections: dict[str, list[tuple[str, Any]]] = {}
    for panel, name, command in commands():
        sections.setdefault(panel, []).append((name, command))
    parts = [_HEAD, _overview(sections)]
    for panel, members in sections.items():
        parts.append(f"## {panel}\n")
        parts += [_command(name, command) for name, command in members]
    rows = [(f"`{name}`", JSON[name]) for _, name, _ in commands() if name in JSON]
    parts += [f"{_JSON_HEAD}\n{tables.table(('command', 'prints'), rows)}", _COMPLETION]
    parts.append(f"## Exit codes\n\n{tables.exit_codes()}")
    return "\n".join(parts)


def _overview(sections: Mapping[str, list[tuple[str, Any]]]) -> str:
    rows = []
    for panel, members in sections.items():
        names = ", ".join(f"[`{_short(name)}`](#{name.replace(' ', '-')})" for name, _ in members)
        rows.append((panel, names))
    return tables.table(("group", "commands"), rows)


def _short(name: str) -> str:
    return name.removeprefix("ems ")


def _command(name: str, command: Any) -> str:
    if name == "ems-publish":
        return f"### {name}\n\nThe same as [`ems submit`](#ems-submit).\n"
    elsewhere = _SETTINGS if name.startswith("ems-worker") else _COMMON
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [
        parameter
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden and "--help" not in parameter.opts
    ]
    words = " ".join(_metavar(argument) for argument in arguments)
    parts = [f"### {name}\n", f"```\n{' '.join(filter(None, (name, '[OPTIONS]' if options else '', words)))}\n```\n"]
    if aliases := [alias for alias, of in ems.ALIASES.items() if name == f"ems {of}"]:
        parts.append(f"Also {' and '.join(f'`ems {alias}`' for alias in aliases)}.\n")
    parts.append(f"{_text(command.help)}\n")
    rows = [(f"`{_metavar(argument)}`", argument.help or "") for argument in arguments]
    context = command.context_class(command, info_name=name)
    for option in options:
        if option.name not in elsewhere:
            names, meaning = option.get_help_record(context)
            rows.append((f"`{names}`", meaning.replace("  [", " [")))
    if rows:
        parts.append(tables.table(("argument or option", "meaning"), rows))
    if name.startswith("ems-worker"):
        parts.append("And an option for each [setting](settings.md).\n")
    return "\n".join(parts)


def _metavar(argument: Any) -> str:
    name = argument.metavar or argument.human_readable_name
    name = f"{name}..." if argument.nargs != 1 else name
    return name if argument.required else f"[{name}]"


def _text(help_text: str | None) -> str:
    """The description of a command: paragraphs, each on as many lines as in the code."""
    return (help_text or "").strip()
