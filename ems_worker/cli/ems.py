"""`ems`: shows and changes experiments, exports their results, checks plans, runs a local platform."""

from ems_worker.cli import (
    artifacts,
    changes,
    dlq,
    experiments,
    keeping,
    logs,
    offline,
    points,
    reproduce,
    results,
    run,
    shell,
    up,
)

_ABOUT = "Experiments: list, follow, export, change."

app = shell.app(_ABOUT, no_args_is_help=True)


@app.callback(help=_ABOUT)
def ems(version: shell.Version = False) -> None:
    """Handles the options that come before any command."""


# In the order in which the help lists them.
app.command("run", context_settings=run.CONTEXT_SETTINGS)(run.run)
app.command("ls")(experiments.list_)
app.command("show")(experiments.show)
app.command("watch")(experiments.watch)
app.command("points")(points.points)
app.command("export")(results.export)
app.command("validate")(offline.validate)
app.command("plan")(results.plan)
app.command("config")(results.config)
app.command("logs")(logs.logs)
app.command("archive")(keeping.archive)
app.command("rm")(keeping.rm)
app.command("reproduce")(reproduce.reproduce)
app.command("artifacts")(artifacts.artifacts)
app.command("download")(artifacts.download)
app.command("pause")(changes.pause)
app.command("resume")(changes.resume)
app.command("cancel")(changes.cancel)
app.command("retry")(changes.retry)
app.command("extend")(changes.extend)
app.command("set")(changes.set_)
app.command("close")(changes.close)
app.command("exclude")(changes.exclude)
app.command("include")(changes.include)
app.command("schema")(offline.schema)
app.command("up")(up.up)
app.command("down")(up.down)
app.add_typer(dlq.app, name="dlq")


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
