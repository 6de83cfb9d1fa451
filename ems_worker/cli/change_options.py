"""The options that all commands have that change experiments, and how such a command is carried out."""

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import asking, completion, exits, shell
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

Where = Annotated[
    str | None,
    typer.Option(
        metavar="EXPR",
        help="Only jobs for which this expression of the plan language holds, such as 'lr > 0.01 and state == "
        '"failed"\': parameters by name, label.NAME, state, error_kind, point, replicate, attempt, host.',
    ),
]
# A change that cancels more jobs than this asks first, if it can.
_MANY_JOBS = 1000
Yes = Annotated[
    bool,
    typer.Option("--yes", "-y", help=f"Don't ask before a group or more than {_MANY_JOBS:,} jobs are cancelled."),
]


@dataclass(frozen=True, slots=True)
class Common:
    """The values of the common options."""

    experiment_id: str | None
    group: str | None
    reason: str | None
    dry_run: bool
    wait: bool
    timeout: float | None
    expect_revision: int | None
    request_id: str | None
    json: bool
    server: str | None
    context: str | None


# The parameters of every command, by the fields of `Common`. An experiment's id comes first.
_OPTIONS: dict[str, tuple[Any, Any]] = {
    "experiment_id": (
        Annotated[
            str | None,
            typer.Argument(
                metavar="EXPERIMENT",
                help="An experiment's id, the beginning of its id, its name, or @latest. Not with --group.",
                autocompletion=completion.experiments,
            ),
        ],
        None,
    ),
    "group": (
        Annotated[str | None, typer.Option(metavar="NAME", help="All experiments of this group, instead of one.")],
        None,
    ),
    "reason": (
        Annotated[str | None, typer.Option(metavar="TEXT", help="Why; recorded and published with the change.")],
        None,
    ),
    "dry_run": (Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would happen.")], False),
    "wait": (
        Annotated[
            bool, typer.Option("--wait", help="Wait until the change is complete: nothing of it is in flight any more.")
        ],
        False,
    ),
    "timeout": (
        Annotated[
            float | None,
            typer.Option(
                min=0.1, metavar="SECONDS", help="With --wait: stop waiting after this time. Default: no limit."
            ),
        ],
        None,
    ),
    "expect_revision": (
        Annotated[
            int | None,
            typer.Option(min=0, metavar="NUMBER", help="Refuse if the status has another `revision` by now."),
        ],
        None,
    ),
    "request_id": (asking.RequestId, None),
    "json": (shell.Json, False),
    "server": (shell.Server, None),
    "context": (shell.Context, None),
}
# Options that say how the command behaves rather than what is requested.
_NOT_SENT = ("experiment_id", "json", "server", "context")


def common(command: Callable[..., exits.Exit]) -> Callable[..., exits.Exit]:
    """Adds the common options to a command; it gets them as a `Common`, its first argument."""

    @functools.wraps(command)
    def wrapped(**given: Any) -> exits.Exit:
        return command(Common(**{name: given.pop(name) for name in _OPTIONS}), **given)

    _, *own = inspect.signature(command).parameters.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=default, annotation=annotation)
        for name, (annotation, default) in _OPTIONS.items()
    ]
    # After the id: arguments of the command's own come in the order of the signature.
    parameters = [options[0], *(parameter.replace(kind=kind) for parameter in own), *options[1:]]
    wrapped.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # functions may have one
    wrapped.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return wrapped


def carry_out(
    given: Common,
    send: "Callable[[client.EmsClient, str | None, dict[str, Any]], Awaitable[Document]]",
    *,
    asks: bool = False,
    every: bool = False,
) -> exits.Exit:
    """Sends a request and prints what happens.

    `send` sends it, about the experiment with this id, with further options of the client. With `asks`, a person is
    asked first if it concerns much. With `every`, it is about neither an experiment nor a group.
    """
    import asyncio
    import uuid

    from ems_worker.cli import changed, naming

    if [given.experiment_id is not None, given.group is not None, every].count(True) != 1:
        raise exits.Misused("give an experiment's id, or --group NAME")
    if given.timeout is not None and not given.wait:
        raise exits.Misused("--timeout is how long --wait waits: give both")

    options: dict[str, Any] = {
        name: getattr(given, name) for name in _OPTIONS if name not in _NOT_SENT and getattr(given, name) is not None
    }
    options["request_id"] = given.request_id or str(uuid.uuid4())
    # A name is looked up once: the next time it might mean another experiment.
    found: list[str | None] = []

    async def sent(ems: "client.EmsClient", more: dict[str, Any]) -> Document:
        if not found:
            whom = given.experiment_id
            found.append(None if whom is None else await naming.experiment(ems, whom))
        return await send(ems, found[0], more)

    if asks and not _agreed(given, sent, options):
        shell.say("nothing was changed")
        return exits.Exit.FAILED

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        try:
            document = await sent(ems, options)
        except (errors.NoAnswer, errors.BrokerUnavailable):
            if not given.dry_run:
                shell.say(f"repeating the request is safe with --request-id {options['request_id']}")
            raise
        except asyncio.CancelledError:
            if not given.dry_run:
                shell.say(
                    "the change may be under way, as `ems show` says; repeating it is safe with "
                    f"--request-id {options['request_id']}"
                )
            raise
        changed.show(document, json=given.json)
        refused = any(change.get("refused") for change in document.get("changes", []))
        return exits.Exit.FAILED if refused else exits.Exit.OK

    return asking.run(given.server, given.context, ask)


def _agreed(
    given: Common,
    send: "Callable[[client.EmsClient, dict[str, Any]], Awaitable[Document]]",
    options: dict[str, Any],
) -> bool:
    """Whether the change may be requested: it concerns little, nobody is there to be asked, or a person says yes."""
    import uuid

    from ems_worker.cli import changed

    if given.dry_run or not _on_terminal():
        return True
    found: list[Document] = []

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        document = await send(ems, {**options, "dry_run": True, "request_id": str(uuid.uuid4())})
        found.extend(document.get("changes", [document]))
        return exits.Exit.OK

    # A connection of its own: nobody knows when the answer comes.
    asking.run(given.server, given.context, ask)
    effective = [document for document in found if document["changed"]]
    if not effective or (given.group is None and not _is_much(effective)):
        return True
    for document in effective:
        shell.say(changed.sentence(document))
    return streams.agreed("go on?")


def _on_terminal() -> bool:
    """Whether a person can be asked."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _is_much(documents: Iterable[Document]) -> bool:
    """Whether many jobs are concerned, or so many that they couldn't be counted at once."""
    counts = [document["counts"] for document in documents]
    return None in counts or sum(sum(to.values()) for count in counts for to in count.values()) > _MANY_JOBS
