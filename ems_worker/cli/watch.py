"""`ems watch`: follows an experiment, or all that are open, on a live screen, in lines or as documents."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker.cli import asking, completion, exits, shell

if TYPE_CHECKING:
    from ems_worker import client

# How often a list of experiments is looked at where nobody watches it.
_LOOK_SECONDS = 2.0


@shell.guarded
def watch(
    experiment_id: Annotated[
        str | None,
        typer.Argument(
            metavar="EXPERIMENT",
            help="An id, the beginning of an id, a name, or @latest. Default: all experiments, the open ones first.",
            autocompletion=completion.experiments,
        ),
    ] = None,
    *,
    group: Annotated[str | None, typer.Option(metavar="NAME", help="Without EXPERIMENT: those of this group.")] = None,
    plain: Annotated[bool, typer.Option("--plain", help="A bar or lines instead of the live screen.")] = False,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
    timeout: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Stop after this time. Default: no limit."),
    ] = None,
) -> exits.Exit:
    """Follow an experiment until it ends, or all that are open.

    On a terminal, a live screen shows jobs by state, what runs now, throughput and time left, why jobs failed, and the
    best points. Keys: p pauses or resumes, c cancels and asks before, q quits; without EXPERIMENT, up, down and enter
    choose one. Elsewhere, lines are printed until no experiment is open.

    The exit code is 0 if the experiment completed and 1 if it failed or was cancelled. With --json, every status is
    printed as it arrives.
    """
    from ems_worker.cli import follow, naming
    from ems_worker.terminal import screen

    if experiment_id is not None and group is not None:
        raise exits.Misused("give an experiment's id or --group, not both")
    if screen.usable() and not json and not plain:
        return _on_screen(shell.access(server, context), experiment_id, group, timeout)

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        if experiment_id is None:
            return await _open_ones(ems, group, json=json, timeout=timeout)
        found = await naming.experiment(ems, experiment_id)
        return await follow.to_the_end(ems, found, json=json, each=True, timeout=timeout)

    return asking.run(server, context, ask)


def _on_screen(access: Any, named: str | None, group: str | None, timeout: float | None) -> exits.Exit:
    import asyncio

    from ems_worker import client
    from ems_worker.cli import follow, naming, statuses
    from ems_worker.cli.live import session
    from ems_worker.core.lifecycle.experiment import ENDED

    async def look() -> exits.Exit:
        told: list[Callable[[str], None]] = []

        def tell(message: str) -> None:
            told[-1](message) if told else shell.say(message)

        async with client.EmsClient(access, notice=tell) as ems:
            experiment_id = None if named is None else await naming.experiment(ems, named)
            if experiment_id is not None and (await ems.get(experiment_id))["state"] in ENDED:
                return await follow.to_the_end(ems, experiment_id)
            current = session.Session(ems, experiment_id=experiment_id, group=group)
            told.append(current.shown.tell)
            try:
                async with asyncio.timeout(timeout):
                    status = await current.run()
            except TimeoutError:
                shell.say(f"stopped after {timeout:g} s; {follow.continues(experiment_id)}")
                return exits.Exit.TIMED_OUT
            except asyncio.CancelledError:
                shell.say(follow.continues(experiment_id))
                raise
            if experiment_id is None:
                return exits.Exit.OK
            if status is not None and status["state"] in ENDED:
                return await follow.summary(ems, status)
            if status is not None:
                shell.say(f"{experiment_id} {statuses.line_with_reason(status)}")
            shell.say(follow.continues(experiment_id))
            return exits.Exit.OK

    async def endable() -> exits.Exit:
        with session.ended_by_signals():
            return await look()

    return asyncio.run(endable())


async def _open_ones(ems: "client.EmsClient", group: str | None, *, json: bool, timeout: float | None) -> exits.Exit:
    """Prints the statuses of open experiments as they change, until none is open any more."""
    import asyncio

    from ems_worker.cli import follow
    from ems_worker.cli.live import watched

    followers: dict[str, follow.Follower] = {}
    seen: dict[str, int] = {}

    def show(status: dict[str, Any]) -> None:
        name = status["experiment_id"]
        if status["revision"] > seen.get(name, -1):
            seen[name] = status["revision"]
            follower = followers.setdefault(
                name, follow.DocumentFollower() if json else follow.LineFollower(named=True)
            )
            follower.show(status)

    try:
        async with asyncio.timeout(timeout):
            while True:
                listed = await watched.listed(ems, group, ended=False)
                for status in listed:
                    show(status)
                still_open = {status["experiment_id"] for status in listed}
                for name in followers.keys() - still_open:
                    show(await ems.get(name))
                    del followers[name]
                if not listed:
                    if not seen:
                        shell.say("no experiment is open")
                    return exits.Exit.OK
                await asyncio.sleep(_LOOK_SECONDS)
    except TimeoutError:
        shell.say(f"stopped after {timeout:g} s; {follow.continues(None)}")
        return exits.Exit.TIMED_OUT
    except asyncio.CancelledError:
        shell.say(follow.continues(None))
        raise
