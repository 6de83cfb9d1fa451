"""`ems-publish`: checks a plan, sends it with its base configuration, and prints the worker's decision."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import exits, numbers, shell

if TYPE_CHECKING:
    from ems_worker import settings
    from ems_worker.cli import plans

app = shell.app("Publish a plan of experiments.")

# How long to wait for the worker's decision unless --timeout is given.
_DECISION_SECONDS = 30.0
# How long a dry run waits for a server, which it doesn't need. A server says at once that there is no worker.
_SERVER_SECONDS = 2.0

Wait = Annotated[bool, typer.Option("--wait", help="Follow the experiment until it ends.")]
Publisher = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Your name: letters, digits, - and _. The worker limits the plans per minute of each publisher.",
    ),
]
DryRun = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Publish nothing; show the numbers of points and jobs, their time, some points and configurations.",
    ),
]
Hold = Annotated[
    bool,
    typer.Option(
        "--hold",
        help="Send the plan with `hold: true`: it is accepted and expanded, and starts with `ems resume`. That makes "
        "it another plan, with another plan_sha.",
    ),
]
Timeout = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        metavar="SECONDS",
        help=f"Stop waiting after this time. Default: {_DECISION_SECONDS:g} for the worker's decision, "
        "no limit for the experiment's end.",
    ),
]


@dataclass(frozen=True, slots=True)
class Publication:
    """A checked plan, and how to publish it. `reported` are the warnings that have been printed already."""

    file: "plans.PlanFile"
    message: "plans.Message"
    reported: Sequence[errors.Problem]
    publisher: str | None
    json: bool
    wait: bool
    timeout: float | None


@app.command(epilog=exits.epilog())
@shell.guarded
def publish(
    plan: shell.Plan,
    *,
    wait: Wait = False,
    hold: Hold = False,
    dry_run: DryRun = False,
    json: shell.Json = False,
    publisher: Publisher = None,
    allow_files_from: shell.AllowFilesFrom = None,
    server: shell.Server = None,
    context: shell.Context = None,
    timeout: Timeout = None,
    version: shell.Version = False,
) -> exits.Exit:
    """Publish a plan of experiments.

    Checks the plan by the worker's rules, sends it together with the content of its base file, and prints the worker's
    decision. With --wait, also follows the experiment until it ends.

    The plan may only name files below its own directory, or below the working directory if it is read from standard
    input. Use --allow-files-from to allow others.
    """
    import asyncio

    from ems_worker.cli import dry_run as dry_runs
    from ems_worker.cli import plans, validation

    access = shell.access(server, context)
    if publisher is not None:
        _check_name(publisher)
    file = plans.read(plan, allow_files_from)
    if hold:
        file = plans.held(file)
    checked = validation.validated(file, json=json, consequence=": nothing was published")
    if checked is None:
        return exits.Exit.INVALID_PLAN
    message = plans.message(file, checked)
    if not dry_run:
        publication = Publication(file, message, checked.plan.warnings, publisher, json, wait, timeout)
        return asyncio.run(_send(access, publication))
    decision = asyncio.run(_asked(access, message.data))
    if json:
        shell.out_json(decision or {**validation.decision(checked), "estimate": None})
    elif decision is not None:
        _show_problems(decision, file, message, checked.plan.warnings)
    if decision is not None and decision["decision"] == "rejected":
        return exits.Exit.INVALID_PLAN
    if not json:
        dry_runs.show(checked.plan, checked.count, decision, plan)
    return exits.Exit.OK


def _check_name(publisher: str) -> None:
    from ems_worker.client import publishing

    try:
        publishing.subject(publisher)
    except errors.RequestRefused as refused:
        raise exits.Misused(str(refused)) from refused


async def _asked(access: "settings.Access", plan: bytes) -> dict[str, Any] | None:
    """The worker's decision on the plan, with its estimate of the time; None without a server or a worker."""
    from ems_worker import client

    try:
        async with client.EmsClient(access, connect_timeout=_SERVER_SECONDS, request_timeout=_DECISION_SECONDS) as ems:
            return await ems.validate(plan)
    except errors.EmsError:
        return None


async def _send(access: "settings.Access", publication: Publication) -> exits.Exit:
    """Publishes the plan, waits for the decision and, if asked to, for the end. The timeout is for all of it."""
    import asyncio

    from ems_worker import client
    from ems_worker.cli import follow

    timeout = publication.timeout
    began = time.monotonic()
    async with client.EmsClient(access, notice=shell.say, publisher=publication.publisher) as ems:
        try:
            ack = await ems.publish(publication.message.data, content_type=publication.message.content_type)
        except asyncio.CancelledError:
            shell.say("the plan may have been stored; it is safe to send it again")
            raise
        try:
            decision = await ems.decision(ack.seq, timeout or _DECISION_SECONDS)
        except (errors.NoAnswer, asyncio.CancelledError) as cause:
            within = f" within {timeout or _DECISION_SECONDS:g} s" if isinstance(cause, errors.NoAnswer) else ""
            shell.say(
                f"the plan is stored ({ack.stream} {ack.seq}), but no worker has answered{within}; "
                "it will run when a worker starts"
            )
            if isinstance(cause, asyncio.CancelledError):
                raise
            return exits.Exit.TIMED_OUT
        if publication.json:
            shell.out_json(decision)
        else:
            show_decision(decision, publication.file, publication.message, publication.reported)
        if decision["decision"] == "rejected":
            return exits.Exit.INVALID_PLAN
        if not publication.wait:
            return exits.Exit.OK
        left = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        return await follow.to_the_end(ems, decision["experiment_id"], json=publication.json, timeout=left)


def show_decision(
    decision: dict[str, Any], file: "plans.PlanFile", message: "plans.Message", reported: Sequence[errors.Problem]
) -> None:
    """Prints an `ems.decision.v1` without the warnings that have been `reported` already."""
    _show_problems(decision, file, message, reported)
    experiment_id = decision["experiment_id"]
    match decision["decision"]:
        case "rejected":
            pass
        case "duplicate":
            shell.out(f"{experiment_id}: this plan was accepted before; nothing new happens")
        case _:
            counted = f"{numbers.counted(decision['points'], 'point')}, {numbers.counted(decision['jobs'], 'job')}"
            shell.out(f"{experiment_id}: accepted, {counted}")


def _show_problems(
    decision: dict[str, Any], file: "plans.PlanFile", message: "plans.Message", reported: Sequence[errors.Problem]
) -> None:
    """Prints the new warnings of a decision, and its errors."""
    from ems_worker.cli import problems

    known = {(warning.code, warning.path) for warning in reported}
    warnings = problems.from_documents(decision["warnings"])
    new = [warning for warning in warnings if (warning.code, warning.path) not in known]
    problems.show(new, file, kind="warning", show_lines=message.lines_stay)
    if decision["decision"] == "rejected":
        problems.show(problems.from_documents(decision["errors"]), file, show_lines=message.lines_stay)
        shell.say(f"the worker rejected {file.name}")


def main() -> None:
    """The entry point."""
    shell.run(app)


if __name__ == "__main__":
    main()
