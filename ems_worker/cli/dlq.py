"""`ems dlq`: what the worker could not use, looked at, sent again or dropped."""

import contextlib
import dataclasses
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import asking, exits, shell
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.client.dead_letters import DeadLetter

app = shell.app("Dead letters: plans and events that could not be used.", no_args_is_help=True)

Numbers = Annotated[list[int] | None, typer.Argument(metavar="[SEQ]...", help="Numbers, as `ems dlq ls` shows them.")]
Number = Annotated[int, typer.Argument(metavar="SEQ", help="Its number, as `ems dlq ls` shows it.")]


class Kind(StrEnum):
    """What a dead letter is."""

    PLAN = "plan"
    EVENT = "event"


KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only plans, or only events.")]
All = Annotated[bool, typer.Option("--all", help="All of them (of --kind).")]


@app.command("ls")
@shell.guarded
def list_(
    kind: KindOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="How many, the oldest first.")
    ] = 50,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Lists dead letters, the oldest first, with the reason of each."""
    from ems_worker.cli import tables

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        rows = []
        async with contextlib.aclosing(ems.dead_letters.list(kind)) as found:
            async for one in found:
                rows.append(one)
                if json:
                    shell.out_json(_document(one))
                if len(rows) == limit:
                    break
        if not rows:
            shell.say("no dead letters")
        elif not json:
            cells = [(str(one.seq), one.kind, _at(one), one.subject, f"{one.size:,}", one.reason) for one in rows]
            tables.show(("seq", "kind", "at", "subject", "bytes", "reason"), cells, numbers=(0, 4))
        return exits.Exit.OK

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def show(
    seq: Number, json: shell.Json = False, server: shell.Server = None, context: shell.Context = None
) -> exits.Exit:
    """Shows why a dead letter is one, and prints its content to stdout."""

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        one = await ems.dead_letters.get(seq)
        if json:
            content = None if one.data is None else one.data.decode(errors="backslashreplace")
            shell.out_json({**_document(one), "data": content})
            return exits.Exit.OK
        for name, value in _document(one).items():
            shell.say(f"{name}: {value}")
        if one.data is None:
            shell.say(f"too large to be kept here: message {one.original_seq} of stream {one.stream}")
        else:
            streams.out_data(one.data)
        return exits.Exit.OK

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def replay(
    seqs: Numbers = None,
    every: All = False,
    kind: KindOption = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Sends dead letters again to where they were sent first, and drops them.

    A plan is a new submission then: a restored object, a larger limit or a newer worker may make it a good one.
    Only plans and run events are sent, with the headers that say what the content is; a letter that says it is
    anything else is refused, and the others are sent all the same.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        code = exits.Exit.OK
        for seq in await _chosen(ems, seqs, every, kind):
            try:
                ack = await ems.dead_letters.replay(seq)
            except errors.RequestRefused as refused:
                shell.say(f"error: {refused}")
                code = exits.Exit.FAILED
            else:
                shell.out(f"{seq}: sent again as {ack.stream} {ack.seq}")
        return code

    return asking.asked(server, context, ask)


@app.command()
@shell.guarded
def drop(
    seqs: Numbers = None,
    every: All = False,
    kind: KindOption = None,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Deletes dead letters for good."""

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        for seq in await _chosen(ems, seqs, every, kind):
            await ems.dead_letters.drop(seq)
            shell.out(f"{seq}: dropped")
        return exits.Exit.OK

    return asking.asked(server, context, ask)


async def _chosen(ems: "client.EmsClient", seqs: list[int] | None, every: bool, kind: Kind | None) -> list[int]:
    """The numbers that were given, or all that are there now: not those that a replay brings back meanwhile."""
    if bool(seqs) == every:
        raise exits.Misused("give numbers, or --all")
    if seqs:
        return seqs
    async with contextlib.aclosing(ems.dead_letters.list(kind)) as found:
        return [one.seq async for one in found]


def _document(one: "DeadLetter") -> dict[str, Any]:
    fields = {field.name: getattr(one, field.name) for field in dataclasses.fields(one) if field.name != "data"}
    return {**fields, "at": _at(one)}


def _at(one: "DeadLetter") -> str:
    return "-" if one.at is None else f"{one.at:%Y-%m-%dT%H:%M:%SZ}"
