"""`ems pause`, `resume`, `cancel`, `retry`, `extend`, `set`, `close`, `exclude`, `include`: changes of experiments."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import change_options, exits, shell
from ems_worker.cli.change_options import Common, Where, Yes


@shell.guarded
@change_options.common
def pause(
    given: Common,
    *,
    now: Annotated[
        bool, typer.Option("--now", help="Pause running runs too, if the orchestrator can do that.")
    ] = False,
) -> exits.Exit:
    """Start no more jobs until `ems resume`.

    Running runs end as usual, unless --now is given.
    """
    return change_options.carry_out(given, lambda ems, whom, options: ems.pause(whom, now=now, **options))


@shell.guarded
@change_options.common
def resume(
    given: Common,
    *,
    every: Annotated[
        bool,
        typer.Option("--all", help="Let a worker that was started with --hold start runs. Paused experiments stay so."),
    ] = False,
) -> exits.Exit:
    """Resume a paused or held experiment.

    An experiment whose budget is used up stays paused until `ems set` raises it.
    """
    return change_options.carry_out(
        given, lambda ems, whom, options: ems.resume(whom, all=every, **options), every=every
    )


@shell.guarded
@change_options.common
def cancel(
    given: Common,
    *,
    drain: Annotated[bool, typer.Option("--drain", help="Let running runs end instead of stopping them.")] = False,
    where: Where = None,
    yes: Yes = False,
) -> exits.Exit:
    """Cancel an experiment, or some of its jobs.

    Nothing more starts, and running runs are stopped. What was cancelled is retried only if `ems retry --where` names
    the state. On a terminal, cancelling a group or many jobs asks first.
    """
    return change_options.carry_out(
        given,
        lambda ems, whom, options: ems.cancel(whom, drain=drain, where=where, **options),
        asks=not yes,
    )


@shell.guarded
@change_options.common
def retry(given: Common, *, where: Where = None) -> exits.Exit:
    """Retry failed and lost jobs.

    Jobs that were dropped because too many failed are retried too. Jobs that lack only metrics wait for them again,
    without a new run. With --where, all ended jobs for which it holds and which did not complete: infeasible ones only
    if it names error_kind, cancelled ones only if it names state. An experiment that has ended reopens as a new round.
    """
    return change_options.carry_out(given, lambda ems, whom, options: ems.retry(whom, where=where, **options))


@shell.guarded
@change_options.common
def extend(
    given: Common,
    plan: Annotated[
        str | None,
        typer.Argument(
            metavar="PLAN", help="The new plan's file; it has all points, old and new. - for standard input."
        ),
    ] = None,
    *,
    replicates: Annotated[
        int | None, typer.Option(min=1, metavar="NUMBER", help="So many replicates of each point.")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, metavar="NUMBER", help="So many samples of the design.")] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH=VALUES", help="Further values of a parameter, such as food=150,200; repeatable."),
    ] = None,
    withdraw: Annotated[
        bool, typer.Option("--withdraw", help="Cancel and exclude points that the new plan does not have.")
    ] = False,
    yes: Yes = False,
    allow_files_from: shell.AllowFilesFrom = None,
) -> exits.Exit:
    """Add points or replicates to an experiment.

    Give a new plan, or --replicates, --samples or --add, which change the present one. Points that are there keep their
    numbers, seeds and results. An experiment that has ended reopens as a new round.
    """
    if (plan is None) == (replicates is None and samples is None and not add):
        raise exits.Misused("give a plan, or --replicates, --samples or --add")
    own: dict[str, Any] = {"replicates": replicates, "samples": samples, "withdraw": withdraw}
    if add:
        own["add"] = dict(map(_axis, add))
    if plan is not None:
        from ems_worker.cli import plans, validation

        file = plans.read(plan, allow_files_from)
        checked = validation.validated(file, json=given.json, consequence=": nothing was changed")
        if checked is None:
            return exits.Exit.INVALID_PLAN
        own["plan"] = plans.message(file, checked).data
    return change_options.carry_out(
        given, lambda ems, whom, options: ems.extend(whom, **own, **options), asks=withdraw and not yes
    )


@shell.guarded
@change_options.common
def set_(
    given: Common,
    limits: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME=VALUE",
            help="priority, max_concurrent or max_failed (a number or percent); null returns to the plan's.",
        ),
    ] = None,
) -> exits.Exit:
    """Replace limits of the plan, such as priority=5.

    They apply at once, and to later rounds.
    """
    words = list(limits or [])
    if given.experiment_id is not None and "=" in given.experiment_id:  # it follows --group
        words, given = [given.experiment_id, *words], replace(given, experiment_id=None)
    values = dict(map(_limit, words))
    if not values:
        raise exits.Misused("give a limit, such as priority=5")
    return change_options.carry_out(given, lambda ems, whom, options: ems.set(whom, **values, **options))


@shell.guarded
@change_options.common
def close(given: Common) -> exits.Exit:
    """Let an experiment with `keep_open` end.

    It ends as soon as its jobs have.
    """
    return change_options.carry_out(given, lambda ems, whom, options: ems.close(whom, **options))


@shell.guarded
@change_options.common
def exclude(
    given: Common,
    *,
    where: Where = None,
    every: Annotated[bool, typer.Option("--all", help="All jobs, in place of --where.")] = False,
) -> exits.Exit:
    """Leave jobs out of statistics and ranking.

    Their results are kept, and marked with the reason. Nothing is cancelled. A point is excluded when all its jobs are.
    """
    if (where is None) is not every:
        raise exits.Misused("say which jobs with --where, such as --where 'point == 3', or give --all")
    return change_options.carry_out(given, lambda ems, whom, options: ems.exclude(whom, where=where, **options))


@shell.guarded
@change_options.common
def include(given: Common, *, where: Where = None) -> exits.Exit:
    """Count excluded jobs again."""
    return change_options.carry_out(given, lambda ems, whom, options: ems.include(whom, where=where, **options))


def _limit(assignment: str) -> tuple[str, Any]:
    """A limit's name and value from `NAME=VALUE`."""
    name, equals, text = assignment.partition("=")
    if not equals or name not in ("priority", "max_concurrent", "max_failed"):
        raise exits.Misused(f"{assignment!r}: should be priority=NUMBER, max_concurrent=NUMBER or max_failed=NUMBER")
    if text == "null":
        return name, None
    try:
        return name, int(text)
    except ValueError:
        if name == "max_failed" and text.endswith("%"):
            return name, text
        raise exits.Misused(f"{assignment}: {text!r} is no whole number") from None


def _axis(addition: str) -> tuple[str, list[Any]]:
    """A parameter's path and further values from `PATH=VALUES`, which are read as in a plan."""
    from ems_worker.adapters import yaml_reader

    path, equals, values = addition.partition("=")
    if not equals or not path or not values:
        raise exits.Misused(f"--add {addition}: should be PATH=VALUE,VALUE")
    try:
        read = yaml_reader.read_plan(f"values: [{values}]".encode()).data["values"]
    except (errors.PlanRejected, errors.Unreadable) as error:
        raise exits.Misused(f"--add {addition}: the values can't be read: {error}") from error
    assert isinstance(read, list)
    return path, read
