"""`ems-publish`: checks a plan here, sends it with its base configuration, says what became of it."""

import asyncio
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import exits, follow, shell

if TYPE_CHECKING:
    from ems_worker import settings
    from ems_worker.cli import plans

app = shell.app("Publishes a plan of experiments.")

# How long the worker may take to decide, unless --timeout says otherwise.
_DECISION_SECONDS = 30.0
# How long a dry run waits for a server and a worker, which it can do without.
_ASK_SECONDS = 2.0

Plan = Annotated[str, typer.Argument(metavar="PLAN", help="The plan, YAML or JSON; - for standard input.")]
Wait = Annotated[bool, typer.Option("--wait", help="Stay until the experiment has ended, and show how it goes.")]
Publisher = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who sends it: letters, digits, - and _. Limits a minute are by this name."),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Publish nothing: show points, jobs, seeds and what the runs would get.")
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        metavar="SECONDS",
        help=f"Give up waiting after this long. Default: {_DECISION_SECONDS:g} for the worker's decision, "
        "no limit for the end.",
    ),
]


@app.command(epilog=exits.epilog())
@shell.guarded
def publish(
    plan: Plan,
    wait: Wait = False,
    dry_run: DryRun = False,
    json: shell.Json = False,
    publisher: Publisher = None,
    allow_files_from: shell.AllowFilesFrom = None,
    server: shell.Server = None,
    context: shell.Context = None,
    timeout: Timeout = None,
    version: shell.Version = False,
) -> exits.Exit:
    """Publishes a plan.

    The plan is checked here first, by the worker's own rules; the content of its base file is sent with it. Prints the
    worker's decision, and with --wait the experiment's end.

    A plan may come from anyone: only files below its own directory are read, the working directory for standard input,
    and below those of --allow-files-from.
    """
    from ems_worker.cli import dry_run as dry_runs
    from ems_worker.cli import plans, validation

    access = shell.access(server, context)
    if publisher is not None:
        _check_name(publisher)
    file = plans.read(plan, allow_files_from)
    checked = validation.validated(file, json=json, consequence=": nothing was published")
    if checked is None:
        return exits.Exit.INVALID_PLAN
    if not dry_run:
        message = plans.message(file, checked)
        return asyncio.run(_send(access, publisher, file, message, checked.plan.warnings, json, wait, timeout))
    guess = asyncio.run(_estimate(access, plans.message(file, checked).data))
    if json:
        shell.out_json(validation.decision(checked) | {"estimate": guess})
    else:
        dry_runs.show(checked.plan, checked.count, guess)
    return exits.Exit.OK


def _check_name(publisher: str) -> None:
    from ems_worker.client import publishing

    try:
        publishing.subject(publisher)
    except errors.RequestRefused as wrong:
        raise exits.Misused(str(wrong)) from wrong


async def _estimate(access: "settings.Access", plan: bytes) -> dict[str, Any] | None:
    """How long the worker thinks that the plan would take; None where nobody can tell: a dry run needs no server."""
    from ems_worker import client

    try:
        async with client.EmsClient(access, connect_timeout=_ASK_SECONDS, request_timeout=_ASK_SECONDS) as ems:
            found: dict[str, Any] | None = (await ems.validate(plan)).get("estimate")
            return found
    except errors.EmsError:
        return None


async def _send(
    access: "settings.Access",
    publisher: str | None,
    file: "plans.PlanFile",
    message: "plans.Message",
    told: Sequence[errors.Problem],
    json: bool,
    wait: bool,
    timeout: float | None,
) -> exits.Exit:
    """Publishes the message and follows what becomes of it; `timeout` is for all of it.

    `told`: warnings that were told already.
    """
    from ems_worker import client

    began = time.monotonic()
    async with client.EmsClient(access, notice=shell.say, publisher=publisher) as ems:
        ack = await ems.publish(message.data, content_type=message.content_type)
        try:
            decision = await ems.decision(ack.seq, timeout or _DECISION_SECONDS)
        except (errors.NoAnswer, asyncio.CancelledError) as why:
            stored = f"the plan is stored ({ack.stream} {ack.seq}) and no worker has answered"
            within = f" within {timeout or _DECISION_SECONDS:g} s" if isinstance(why, errors.NoAnswer) else ""
            shell.say(f"{stored}{within}: it runs when one starts")
            if isinstance(why, asyncio.CancelledError):
                raise
            return exits.Exit.TIMED_OUT
        if json:
            shell.out_json(decision)
        else:
            _tell(decision, file, message, told)
        if decision["decision"] == "rejected":
            return exits.Exit.INVALID_PLAN
        if not wait:
            return exits.Exit.OK
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        return await follow.to_the_end(ems, decision["experiment_id"], json=json, timeout=left)


def _tell(
    decision: dict[str, Any], file: "plans.PlanFile", message: "plans.Message", told: Sequence[errors.Problem]
) -> None:
    from ems_worker.cli import problems

    known = {(one.code, one.path) for one in told}
    news = [one for one in problems.from_documents(decision["warnings"]) if (one.code, one.path) not in known]
    problems.tell(news, file, kind="warning", show_lines=message.lines_stay)
    name = decision["experiment_id"]
    match decision["decision"]:
        case "rejected":
            found = problems.from_documents(decision["errors"])
            problems.tell(found, file, show_lines=message.lines_stay)
            shell.say(f"the worker rejected {file.name}")
        case "duplicate":
            shell.out(f"{name}: this plan was accepted before, nothing new happens")
        case _:
            shell.out(f"{name}: accepted, {decision['points']:,} points, {decision['jobs']:,} jobs")


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
