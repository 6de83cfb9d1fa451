"""`ems dlq`: lists, shows, replays and drops dead letters, the messages that the worker could not process."""

import contextlib
import dataclasses
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import asking, exits, numbers, shell
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.client.dead_letters import DeadLetter

app = shell.app("Dead letters: messages that could not be used.", no_args_is_help=True)

Numbers = Annotated[list[int] | None, typer.Argument(metavar="SEQ", help="Numbers as `ems dlq ls` shows them.")]
Number = Annotated[int, typer.Argument(metavar="SEQ", help="The number as `ems dlq ls` shows it.")]


class Kind(StrEnum):
    """What a dead letter was sent as."""

    PLAN = "plan"
    EVENT = "event"


KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only dead letters of this kind.")]
All = Annotated[bool, typer.Option("--all", help="All dead letters, or all of --kind.")]


@app.command("ls")
@shell.guarded
def list_(
    *,
    kind: KindOption = None,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, metavar="NUMBER", help="List at most this many dead letters.")
    ] = 50,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List dead letters with their reasons, oldest first."""

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        listed: list[DeadLetter] = []
        async with contextlib.aclosing(ems.dead_letters.list(kind)) as letters:
            async for letter in letters:
                if len(listed) == limit:
                    shell.say(f"there are more than {numbers.counted(limit, 'dead letter')}: -n lists more of them")
                    break
                listed.append(letter)
                if json:
                    shell.out_json(_document(letter))
        if not listed:
            shell.say("no dead letters")
        elif not json:
            show_list(listed)
        return exits.Exit.OK

    return asking.run(server, context, ask)


def show_list(listed: Sequence["DeadLetter"]) -> None:
    """Prints dead letters as a table."""
    from ems_worker.cli import fitting, tables

    columns = (
        fitting.Column("seq"),
        fitting.Column("kind"),
        fitting.Column("at", drop=3),
        fitting.Column("subject", drop=1, cut=16),
        fitting.Column("bytes", drop=2),
        fitting.Column("reason", cut=40),
    )
    rows = [
        (str(letter.seq), letter.kind, _at(letter), letter.subject, numbers.size(letter.size), letter.reason)
        for letter in listed
    ]
    tables.show(columns, rows, instead="ems dlq show SEQ, or a wider window")


@app.command()
@shell.guarded
def show(
    seq: Number, json: shell.Json = False, server: shell.Server = None, context: shell.Context = None
) -> exits.Exit:
    """Show a dead letter.

    Prints its reason and origin on stderr and its content on stdout.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        letter = await ems.dead_letters.get(seq)
        if json:
            content = None if letter.data is None else letter.data.decode(errors="backslashreplace")
            shell.out_json({**_document(letter), "data": content})
            return exits.Exit.OK
        for name, value in _document(letter).items():
            shell.say(f"{name}: {numbers.size(value) if name == 'size' else value}")
        if letter.data is None:
            shell.say(
                f"the content is too large to be kept here; it is message {letter.original_seq} of stream "
                f"{letter.stream}"
            )
        else:
            streams.out_data(letter.data)
        return exits.Exit.OK

    return asking.run(server, context, ask)


@app.command()
@shell.guarded
def replay(
    seqs: Numbers = None,
    *,
    every: All = False,
    kind: KindOption = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Send dead letters again and drop them.

    Each goes to its original subject. A replayed plan is a new submission: it may succeed because an object was
    restored, a limit raised or the worker upgraded.

    Only plans and run events are sent, with no headers but those that describe the content. A letter of any other
    origin is refused, and the command continues with the next letter.
    """

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        code = exits.Exit.OK
        for seq in await _chosen(ems, seqs, every=every, kind=kind):
            try:
                ack = await ems.dead_letters.replay(seq)
            except errors.RequestRefused as refused:
                shell.say(f"error: {refused}")
                code = exits.Exit.FAILED
            else:
                if json:
                    shell.out_json({"seq": seq, "sent_as": {"stream": ack.stream, "seq": ack.seq}})
                else:
                    shell.out(f"{seq}: sent again as {ack.stream} {ack.seq}")
        return code

    return asking.run(server, context, ask)


@app.command()
@shell.guarded
def drop(
    seqs: Numbers = None,
    *,
    every: All = False,
    kind: KindOption = None,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Delete dead letters permanently."""

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        for seq in await _chosen(ems, seqs, every=every, kind=kind):
            await ems.dead_letters.drop(seq)
            if json:
                shell.out_json({"seq": seq, "dropped": True})
            else:
                shell.out(f"{seq}: dropped")
        return exits.Exit.OK

    return asking.run(server, context, ask)


async def _chosen(ems: "client.EmsClient", seqs: list[int] | None, *, every: bool, kind: Kind | None) -> list[int]:
    """The given numbers, or all that exist now. Listed before the first replay, which may add letters."""
    if bool(seqs) == every:
        raise exits.Misused("give numbers, or --all")
    if seqs:
        return seqs
    async with contextlib.aclosing(ems.dead_letters.list(kind)) as letters:
        return [letter.seq async for letter in letters]


def _document(letter: "DeadLetter") -> dict[str, Any]:
    fields = {field.name: getattr(letter, field.name) for field in dataclasses.fields(letter) if field.name != "data"}
    return {**fields, "at": _at(letter)}


def _at(letter: "DeadLetter") -> str:
    return "-" if letter.at is None else f"{letter.at:%Y-%m-%dT%H:%M:%SZ}"
