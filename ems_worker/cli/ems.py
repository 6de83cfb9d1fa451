"""`ems`: runs a platform, checks and sends plans, shows and changes experiments, takes their results."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from ems_worker.cli import (
    artifacts,
    changes,
    dlq,
    doctor,
    experiments,
    groups,
    jobs,
    keeping,
    logs,
    offline,
    points,
    publish,
    reproduce,
    results,
    run,
    shell,
    up,
    watch,
)

_ABOUT = "Experiments: plan, send, look, steer, take."

# The groups of the help with their commands, in its order.
COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = MappingProxyType(
    {
        "Start": {"run": run.run, "up": up.up, "down": up.down, "doctor": doctor.doctor},
        "Plan": {"validate": offline.validate, "points": points.points, "schema": offline.schema},
        "Send": {"submit": publish.publish, "extend": changes.extend, "reproduce": reproduce.reproduce},
        "Look": {
            "ls": experiments.list_,
            "show": experiments.show,
            "watch": watch.watch,
            "jobs": jobs.jobs,
            "runs": jobs.runs,
            "logs": logs.logs,
        },
        "Steer": {
            "pause": changes.pause,
            "resume": changes.resume,
            "cancel": changes.cancel,
            "retry": changes.retry,
            "set": changes.set_,
            "close": changes.close,
            "exclude": changes.exclude,
            "include": changes.include,
        },
        "Take": {
            "plan": results.plan,
            "config": results.config,
            "results": results.export,
            "artifacts": artifacts.artifacts,
            "download": artifacts.download,
            "archive": keeping.archive,
            "rm": keeping.rm,
        },
    }
)
ALIASES: Mapping[str, str] = MappingProxyType(
    {"publish": "submit", "list": "ls", "status": "show", "export": "results"}
)
# Words of other tools, with the commands that may be meant; those that don't exist are left out.
MEANT: Mapping[str, Sequence[str]] = MappingProxyType(
    {
        "stop": ("cancel", "pause", "down"),
        "kill": ("cancel",),
        "abort": ("cancel",),
        "delete": ("rm", "cancel", "exclude"),
        "remove": ("rm", "cancel", "exclude"),
        "rerun": ("retry", "reproduce"),
        "restart": ("retry", "resume"),
        "continue": ("resume",),
        "sweep": ("run", "submit"),
        "start": ("run", "submit", "up"),
        "create": ("submit",),
        "apply": ("submit",),
        "get": ("show", "ls"),
        "describe": ("show",),
        "ps": ("ls", "runs"),
        "top": ("watch",),
        "follow": ("watch",),
        "tail": ("logs", "watch"),
        "output": ("logs",),
        "check": ("validate", "doctor"),
    }
)

app = shell.app(_ABOUT, no_args_is_help=True, completes=True, cls=groups.group(ALIASES, MEANT))


@app.callback(help=_ABOUT)
def ems(version: shell.Version = False) -> None:
    """Handles the options that come before any command."""


def _add(panel: str, commands: Mapping[str, Callable[..., Any]]) -> None:
    for name, command in commands.items():
        settings = run.CONTEXT_SETTINGS if command is run.run else None
        app.command(name, rich_help_panel=panel, context_settings=settings)(command)


for _panel, _commands in COMMANDS.items():
    _add(_panel, _commands)
app.add_typer(dlq.app, name="dlq", rich_help_panel="Operate")


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
