"""`ems validate` and `ems schema`: what needs neither a server nor a worker."""

from typing import Annotated

import typer

from ems_worker.cli import exits, shell
from ems_worker.core.documents import titles


@shell.guarded
def validate(
    plan: shell.Plan,
    json: shell.Json = False,
    allow_files_from: shell.AllowFilesFrom = None,
) -> exits.Exit:
    """Check a plan without a server.

    The rules are the worker's. With --json, the decision document is printed. The plan may name the same files as for
    ems-publish.
    """
    from ems_worker.cli import dry_run, plans, validation

    file = plans.read(plan, allow_files_from)
    checked = validation.validated(file, json=json)
    if checked is None:
        return exits.Exit.INVALID_PLAN
    if json:
        shell.out_json(validation.decision(checked))
    else:
        shell.out(f"{file.name} is valid: {dry_run.size(checked.count, checked.plan.replicates)}")
    return exits.Exit.OK


@shell.guarded
def schema(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help=f"plan, decision, status, ..., or a full name such as {titles.STATUS}. Default: list all.",
        ),
    ] = None,
) -> exits.Exit:
    """Print the JSON Schema of plans or documents.

    The documents are those that the worker publishes. The schemas are of JSON Schema 2020-12.
    """
    from ems_worker.core.documents import schemas

    if name is None:
        shell.out("\n".join(schemas.names()))
        return exits.Exit.OK
    schema = schemas.find(name)
    if schema is None:
        raise exits.Misused(f"there is no schema {name!r}; there are {', '.join(schemas.names())}")
    shell.out(schemas.text(schema))
    return exits.Exit.OK
