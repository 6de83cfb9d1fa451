"""`ems ls`, `show`: experiments as the worker knows them."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import asking, completion, exits, shell
from ems_worker.core.lifecycle.experiment import ExperimentState

if TYPE_CHECKING:
    from ems_worker import client

Experiment = Annotated[
    str,
    typer.Argument(
        metavar="EXPERIMENT",
        help="An experiment's id, the beginning of its id, its name, or @latest, the newest one.",
        autocompletion=completion.experiments,
    ),
]


@shell.guarded
def list_(
    *,
    state: Annotated[ExperimentState | None, typer.Option(help="Only experiments in this state.")] = None,
    group: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only experiments of this group, each on its own line.")
    ] = None,
    tag: Annotated[str | None, typer.Option(metavar="TAG", help="Only experiments with this tag.")] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only experiments whose name has this text in it.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Only experiments created since then: 3d, 12h, 30m, or 2026-11-30[T14:00]."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="Sort by this column, or downwards by -COLUMN. Default: the newest first."),
    ] = None,
    columns: Annotated[
        str | None, typer.Option(metavar="COLUMN,...", help="The columns to show, such as id,state,tags,started.")
    ] = None,
    flat: Annotated[bool, typer.Option("--flat", help="Give each experiment of a group its own line.")] = False,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="At most this many. Default: all.")
    ] = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List experiments, newest first.

    Experiments of the same group are one line; `ems show GROUP` lists them. With --json, each experiment is a document.
    On a narrow terminal, some columns are left out; --columns shows exactly those that it names.
    """
    from ems_worker.cli import lists, moments, numbers

    how = lists.listing(columns, sort, fold=not flat and group is None, limit=limit or 0)
    if json and (sort is not None or columns is not None):
        raise exits.Misused("--sort and --columns are for the table: documents come newest first, with all keys")
    since_at = None if since is None else moments.since(since, moments.now())

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        which = {"state": state, "group": group, "tag": tag, "name": name, "since_at": since_at}
        async with contextlib.aclosing(ems.experiments(**which)) as listed:
            if not json:
                lines = lists.Lines(fold=how.fold)
                async for status in listed:
                    lines.add(status)
                lists.show(lines.found, how)
                return exits.Exit.OK
            count = 0
            async for status in listed:
                if count == limit:
                    shell.say(f"there are more than {numbers.counted(count, 'experiment')}: without -n all are listed")
                    break
                shell.out_json(status)
                count += 1
        return exits.Exit.OK

    return asking.run(server, context, ask)


@shell.guarded
def show(
    experiment_id: Annotated[
        str,
        typer.Argument(
            metavar="EXPERIMENT|GROUP",
            help="An experiment's id, the beginning of its id, its name, or @latest, the newest one; or a group.",
            autocompletion=completion.experiments,
        ),
    ],
    *,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit", "-n", min=0, metavar="NUMBER", help="List at most this many points; 0: all. Default: 20."
        ),
    ] = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Show an experiment with its points, or a group.

    If a tracked metric has a goal, the best points come first. Means have n, the number of replicates behind them, and
    the half-width of their 95 % confidence interval. With --json, `listed_points` has the points.
    """
    from ems_worker.cli import failures, lists, naming, views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        found, group = await naming.experiment_or_group(ems, experiment_id)
        if found is None:
            async with contextlib.aclosing(ems.experiments(group=group)) as listed:
                members = [status async for status in listed]
            if json:
                for status in members[: limit or None]:
                    shell.out_json(status)
            else:
                lists.show_group(members, limit or 0)
            return exits.Exit.OK
        details = {**await ems.get(found), "experiment_id": found}
        if not json:
            views.details_of(details)
            await failures.show(ems, details)
        points = await views.points_of(ems, details, views.MAX_POINTS if limit is None else limit)
        if json:
            shell.out_json({**details, "listed_points": points})
        else:
            views.points(points, details)
        return exits.Exit.OK

    return asking.run(server, context, ask)
