"""`ems run`: a command line over a grid of values, or a plan, from start to results."""

import functools
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker.cli import exits, shell
from ems_worker.cli.formats import ConfigFormat
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker.cli import plans
    from ems_worker.local import registry

_PLAN_SUFFIXES = (".yaml", ".yml", ".json")
_ROWS_SUFFIXES = (".csv", ".jsonl")
# `--lr {lr}` after an unquoted command reaches us as a word, so that we can say what to do.
CONTEXT_SETTINGS = {"ignore_unknown_options": True}


@shell.guarded
def run(
    target: Annotated[
        str, typer.Argument(metavar="COMMAND|PLAN", help="A command line in quotes, or a plan's file (- for stdin).")
    ],
    values: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUES",
            help="With a command: lr=0.1,0.01 (a list), m=0.8..0.95/4 (4 values of a range), n=1..10, kind=a,b; JSON "
            "for any other axis of the plan language. seed=1,2,3 lists the seeds of the replicates.",
        ),
    ] = None,
    *,
    replicates: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Runs of each combination, each with its own seed.")
    ] = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME[:max|:min]", help="A number that the program reports; repeatable."),
    ] = None,
    minimize: Annotated[bool, typer.Option("--minimize", help="A lower first metric is better.")] = False,
    maximize: Annotated[bool, typer.Option("--maximize", help="A higher first metric is better.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Base configuration, YAML or JSON; NAMEs are then dotted paths into it."),
    ] = None,
    config_format: Annotated[ConfigFormat, typer.Option(help="Format of the file {config}.")] = ConfigFormat.YAML,
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The experiment's name.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Change the plan, or its base configuration, before it is sent; repeatable.",
        ),
    ] = None,
    simulator: Annotated[
        str | None, typer.Option(metavar="COMMAND", help="With a plan: the command line that its runs execute.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="A row for each job, .csv or .jsonl. Default: ID.csv."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Start nothing; print the plan.")] = False,
    data_dir: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Directory of the platform if none runs. Default: ems-data."),
    ] = None,
    slots: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="Runs at once, if no platform is running.")
    ] = None,
    json: shell.Json = False,
    allow_files_from: shell.AllowFilesFrom = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Run a program for all combinations of values, or a plan.

    ems run 'python train.py --lr {lr} --seed {seed}' lr=0.1,0.01 --replicates 3 --metric score:max

    Placeholders: {NAME} for a value, {args} for all as --NAME VALUE, {config} and {config.json} for a file that has
    them, {seed}, {output} for a directory of the run's own. They are replaced word by word; no shell is involved.

    The program reports metrics as the last line of its output that is a JSON object, as lines NAME=NUMBER, or in the
    file metrics.json in {output}.

    Uses the platform of `ems up` if one is running, and else starts one until the end. Prints a table of means and
    writes a CSV.
    """
    if output is not None:
        _check_output(output)
    make: Callable[[list[str]], tuple[plans.PlanFile, registry.Simulator | None]]
    if _is_plan(target):
        of_command = {
            "NAME=VALUES": values,
            "--replicates": replicates,
            "--metric": metric,
            "--minimize": minimize,
            "--maximize": maximize,
            "--config": config,
        }
        if given := next((option for option, value in of_command.items() if value), None):
            raise exits.Misused(f"{given} is for a command; a plan is changed by --set, such as --set replicates=5")
        make = functools.partial(
            _of_plan,
            target,
            allow_files_from,
            simulator=simulator,
            config_format=config_format.value,
            name=name,
            with_git=not dry_run,
        )
    else:
        if simulator is not None:
            raise exits.Misused("--simulator is the command line of a plan's runs; here it is the first argument")
        make = functools.partial(
            _of_command,
            target,
            values or [],
            options={"replicates": replicates, "minimize": minimize, "maximize": maximize},
            metrics=metric or [],
            config=config,
            config_format=config_format.value,
            name=name,
            with_git=not dry_run,
        )
    file, chosen = make(set_ or [])
    return _carry_out(
        file,
        chosen,
        dry_run=dry_run,
        output=output,
        place={"data_dir": data_dir, "slots": slots, "server": server, "context": context},
        json=json,
    )


def _check_output(file: Path) -> None:
    """Raises Misused for a file that could not be written hours later."""
    if file.suffix not in ("", *_ROWS_SUFFIXES):
        raise exits.Misused(f"-o {file}: should end in {' or '.join(_ROWS_SUFFIXES)}")
    directory = file.absolute().parent
    if not os.access(directory, os.W_OK) or file.is_dir():
        reason = "it is a directory" if file.is_dir() else f"{directory} is not a directory that can be written to"
        raise exits.Misused(f"-o {file}: {reason}")


def _is_plan(target: str) -> bool:
    """Whether the argument is a plan: standard input, or the name of a file as plans have."""
    return target == "-" or (target.endswith(_PLAN_SUFFIXES) and (Path(target).is_file() or " " not in target))


def _of_plan(
    target: str,
    allow_files_from: list[Path] | None,
    changes: list[str],
    *,
    simulator: str | None,
    config_format: str,
    name: str | None,
    with_git: bool,
) -> "tuple[plans.PlanFile, registry.Simulator | None]":
    from ems_worker.cli import overrides, plans

    file = overrides.applied(plans.read(target, allow_files_from), changes)
    if name is not None:
        file = plans.with_key(file, "experiment_name", name)
    if simulator is None:
        return file, None
    from ems_worker.cli import validation

    # Its problems are reported later, with those of the rest.
    checked = validation.quietly(file)
    known = None
    if checked is not None:
        from ems_worker.cli import sweeps

        known = [*sweeps.paths(checked.base), *(parameter.name for parameter in checked.plan.parameters)]
        known += [".".join(map(str, parameter.path)) for parameter in checked.plan.parameters]
    chosen = _simulator(simulator, "--simulator", known, config_format, with_git=with_git)
    return plans.with_key(file, "simulator", chosen.name), chosen


def _of_command(
    target: str,
    words: list[str],
    changes: list[str],
    *,
    options: dict[str, Any],
    metrics: list[str],
    config: Path | None,
    config_format: str,
    name: str | None,
    with_git: bool,
) -> "tuple[plans.PlanFile, registry.Simulator]":
    from ems_worker.cli import overrides, plans, sweeps
    from ems_worker.core.points import render
    from ems_worker.local import registry

    goals = sweeps.goals(metrics, minimize=options["minimize"], maximize=options["maximize"])
    base = None if config is None else sweeps.configuration(config)
    sweep = sweeps.of_words(words, replicates=options["replicates"], metrics=goals, config=base)
    chosen = _simulator(target, "the command", sweep.parameters, config_format, with_git=with_git)
    _warn(chosen, sweep)
    more: dict[str, Any] = {"description": shlex.join(["ems", "run", target, *words]), "simulator": chosen.name}
    if (git := chosen.origin.git) is not None:
        more["labels"] = {"git_commit": f"{git.commit[:12]}{'' if git.dirty is None else '+changes'}"}
    document = sweep.plan(name or registry.stem(chosen.command.arguments), **more)
    file = plans.PlanFile("the command line", render.block(document).encode(), Path())
    return overrides.applied(file, changes), chosen


def _simulator(
    text: str, where: str, known: list[str] | None, config_format: str, *, with_git: bool
) -> "registry.Simulator":
    from ems_worker.local import checking, registry

    command = checking.checked(text, where, parameters=known, config_format=config_format)
    return registry.described(command, Path.cwd(), os.environ, with_git=with_git)


def _warn(chosen: "registry.Simulator", sweep: Any) -> None:
    """Says what the command line leaves out, which is seldom meant."""
    placed = chosen.command.placeholders
    if not {"args", "config", "config.json"} & set(placed):
        unused = [name for name in sweep.axes if name not in placed]
        if unused:
            is_ = "is" if len(unused) == 1 else "are"
            names = ", ".join(unused)
            shell.say(
                f"warning: {names} {is_} in no placeholder: the program gets it only in the file that "
                "SIMULATION_CONFIG names"
            )
    if "seed" not in placed and (sweep.seeds or (sweep.replicates or 1) > 1):
        shell.say(
            "warning: the command has no {seed}: replicates differ only if the program is random, or takes its seed "
            "from SIMULATION_SEED"
        )


def _carry_out(
    file: "plans.PlanFile",
    chosen: "registry.Simulator | None",
    *,
    dry_run: bool,
    output: Path | None,
    place: dict[str, Any],
    json: bool,
) -> exits.Exit:
    from ems_worker.cli import dry_run as dry_runs
    from ems_worker.cli import places, plans, running, validation

    if dry_run:
        streams.out_data(file.data)
    checked = validation.validated(file, json=json, consequence=": nothing was started")
    if checked is None:
        return exits.Exit.INVALID_PLAN
    shell.say(dry_runs.size(checked.count, checked.plan.replicates))
    if dry_run:
        if chosen is not None:
            words = shlex.join(chosen.command.arguments)
            shell.say(f"to run it from a file: ems run PLAN.yaml --simulator {shlex.quote(words)}")
        return exits.Exit.OK
    job = running.Job(file, plans.message(file, checked), checked.plan.warnings, chosen, output, json)
    return running.carry_out(job, places.Wanted(**place))
