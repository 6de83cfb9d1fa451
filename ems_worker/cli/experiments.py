"""`ems ls`, `show`: experiments as the worker knows them."""

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker.cli import asking, completion, exits, shell
from ems_worker.core.lifecycle.experiment import ExperimentState

if TYPE_CHECKING:
    from ems_worker import client

Experiment = Annotated[
    str, typer.Argument(metavar="ID", help="The experiment's id.", autocompletion=completion.experiments)
]


@shell.guarded
def list_(
    *,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Only experiments of this group.")] = None,
    state: Annotated[ExperimentState | None, typer.Option(help="Only experiments in this state.")] = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="List at most this many experiments.")
    ] = 50,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List experiments, newest first."""
    from ems_worker.cli import views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        statuses = []
        async with contextlib.aclosing(ems.experiments(group=group, state=state)) as listed:
            async for status in listed:
                if json:
                    shell.out_json(status)
                statuses.append(status)
                if len(statuses) == limit:
                    break
        if not json:
            views.experiments(statuses)
        return exits.Exit.OK

    return asking.run(server, context, ask)


@shell.guarded
def show(
    experiment_id: Experiment, json: shell.Json = False, server: shell.Server = None, context: shell.Context = None
) -> exits.Exit:
    """Show an experiment and its points.

    If a tracked metric has a goal, the best points come first.
    """
    from ems_worker.cli import failures, views

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        details = await ems.get(experiment_id)
        if json:
            shell.out_json(details)
            return exits.Exit.OK
        views.details_of(details)
        await failures.show(ems, details)
        await views.points_of(ems, details)
        return exits.Exit.OK

    return asking.run(server, context, ask)
