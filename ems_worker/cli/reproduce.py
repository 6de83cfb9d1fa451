"""`ems reproduce`: publishes an experiment, or one of its runs, again, and compares the results."""

import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ems_worker import errors
from ems_worker.cli import asking, completion, exits, numbers, shell
from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

_DECISION_SECONDS = 30.0
# Characters of an id that are kept in that of its reproduction.
_KEPT = 50


@shell.guarded
def reproduce(
    what: Annotated[
        str,
        typer.Argument(metavar="EXPERIMENT|RUN", help="What to run again.", autocompletion=completion.experiments),
    ],
    *,
    new_id: Annotated[
        str | None,
        typer.Option(
            "--id", metavar="ID", help="The id of the new experiment. With one that is there, its results are compared."
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for its end and compare, which is the default; or don't.")
    ] = True,
    json: shell.Json = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """Run something again, and compare the results.

    The same plan is published under a new id, with the label `reproduces` and the tag `reproduction`: same
    configurations, same seeds. A deterministic simulator then gives the same metrics, to the last digit. The exit code
    is 0 if all results agree, and 1 if any differs or is missing.
    """
    if new_id is not None and not ids.EXPERIMENT_ID.fullmatch(new_id):
        raise exits.Misused(f"--id {new_id!r}: an id has letters, digits, '-' and '_' only, at most 64")

    async def ask(ems: "client.EmsClient") -> exits.Exit:
        from ems_worker.cli import again, follow, naming

        source, named = await naming.experiment_or_run(ems, what)
        run = None if named is None else await _run(ems, named)
        name = new_id or f"{source[:_KEPT]}-again-{secrets.token_hex(3)}"
        details, text = await ems.get(source), await ems.plan(source)
        base = await ems.plan(source, part="base")
        plan = (
            again.plan(text, base, details, name)
            if run is None
            else again.plan_of_run(text, base, details, name=name, run=run)
        )
        ack = await ems.publish(plan, content_type="application/json")
        decision = await ems.decision(ack.seq, _DECISION_SECONDS)
        if decision["decision"] == "rejected":
            reasons = "; ".join(f"{each['path']}: {each['message']}" for each in decision["errors"])
            raise errors.RequestRefused(f"{name}: the plan was rejected: {reasons}")
        jobs = numbers.counted(decision["jobs"], "job")
        if not wait:
            if json:
                shell.out_json(decision)
            else:
                shell.out(f"{name}: accepted, {jobs}; to compare: ems reproduce {what} --id {name}")
            return exits.Exit.OK
        shell.say(f"{name} reproduces {what}: {jobs}")
        later = f"{name}: {follow.continues(name)}; to compare then: ems reproduce {what} --id {name}"
        await follow.followed(ems, name, lambda _: later)
        compared = await again.compare(ems, source, name, run)
        if json:
            shell.out_json(again.document(what, name, compared))
        else:
            again.show(what, name, compared)
        return exits.Exit.OK if compared.agree else exits.Exit.FAILED

    return asking.run(server, context, ask)


async def _run(ems: "client.EmsClient", what: str) -> Document:
    """The `ems.result.v1` of a run, which is the last attempt at its job."""
    parsed = ids.parse_simulation_id(what)
    assert parsed is not None
    job = await ems.job(parsed.experiment_id, parsed.point, parsed.replicate)
    if job["simulation_id"] != what:
        raise errors.NotFound(f"{what} is not the last attempt at its job, which is {job['simulation_id']}")
    return job
