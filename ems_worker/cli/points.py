"""`ems points`: every point of a plan or of an experiment, with its parameters, seeds and simulation ids."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ems_worker import errors
from ems_worker.cli import asking, exits, formats, numbers, results, shell
from ems_worker.cli.formats import Format, PointFormat
from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client
    from ems_worker.cli import export, listing

    Columns = list[str] | export.Columns


@dataclass(frozen=True, slots=True)
class _Output:
    """How points are written, and where."""

    kind: PointFormat
    each_job: bool
    file: Path | None
    safe: bool


@shell.guarded
def points(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PLAN|EXPERIMENT",
            help="A plan's file, or - for standard input; or an experiment's id, the beginning of its id, or @latest. "
            "A file without a dot is ./NAME.",
        ),
    ],
    *,
    kind: Annotated[
        PointFormat | None,
        typer.Option("--format", help="The output format. Default: by the file's extension, else table."),
    ] = None,
    jobs: Annotated[bool, typer.Option("--jobs", help="Write a row for each job instead of each point.")] = False,
    output: results.Output = None,
    safe_for_spreadsheets: results.Safe = False,
    allow_files_from: shell.AllowFilesFrom = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format jsonl.")] = False,
    server: shell.Server = None,
    context: shell.Context = None,
) -> exits.Exit:
    """List every point with its parameters and seeds.

    Also with its simulation ids. A plan is read and checked without a server. The points of an experiment come from the
    worker, as far as they have been expanded, with the ids of the runs that count for its jobs.

    Columns of CSV and JSON lines: ids, run_id_suffix, seeds, param.*, label.*; with --jobs those that `ems export` has
    too. A table shows the first seed and id of each point.
    """
    kind = PointFormat.JSONL if json else formats.of_file(kind, output, PointFormat.TABLE)
    if kind is PointFormat.TABLE and output is not None:
        raise exits.Misused(f"{output}: end the name in .csv or .jsonl, or give --format: a table is for people")
    written = _Output(kind, jobs, output, safe_for_spreadsheets)
    if not (ids.EXPERIMENT_ID.fullmatch(target) or target.startswith("@")):
        return _of_plan(target, allow_files_from, written)
    try:
        return asking.run(server, context, functools.partial(_of_experiment, experiment_id=target, output=written))
    except errors.EmsError:
        if Path(target).is_file():
            shell.say(f"{target} is taken for the id of an experiment; for the file, write ./{target}")
        raise


def _of_plan(argument: str, allow_files_from: list[Path] | None, output: _Output) -> exits.Exit:
    from ems_worker.cli import listing, plans, validation
    from ems_worker.core.documents import headings
    from ems_worker.core.points import space

    checked = validation.validated(plans.read(argument, allow_files_from), json=False)
    if checked is None:
        return exits.Exit.INVALID_PLAN
    plan = checked.plan
    if plan.experiment_id is None:
        shell.say("the plan has no experiment_id: its simulation ids are known when it is accepted")
    parameters = [parameter.name for parameter in plan.parameters]
    entries, _ = plan.grid.values()
    labels = [*plan.labels, *(name for entry in entries for name in entry.labels)]
    columns = listing.columns(parameters, labels, each_job=output.each_job)
    shown = headings.by_name(plan.parameters)
    with _written(output, columns, listing.Table(parameters, plan.replicates, shown, each_job=output.each_job)) as add:
        for point in space.points(plan):
            add(listing.of_point(plan, point))
    _say_where(output, checked.count.points, checked.count.jobs)
    return exits.Exit.OK


async def _of_experiment(ems: "client.EmsClient", experiment_id: str, output: _Output) -> exits.Exit:
    from ems_worker.cli import listing, naming

    experiment_id = await naming.experiment(ems, experiment_id)
    details = await ems.get(experiment_id)
    parameters = list(details["parameters"])
    shown = details.get("headings", {}).get("parameters", {})
    table = listing.Table(parameters, details["replicates"], shown, each_job=output.each_job)
    # The labels of points are known only when the last one has been read.
    columns = functools.partial(listing.columns_among, parameters=parameters, each_job=output.each_job)
    number = jobs = 0
    async with contextlib.aclosing(ems.jobs(experiment_id)) as read:
        with _written(output, columns, table) as add:
            async for entry in listing.of_jobs(read):
                add(entry)
                number, jobs = number + 1, jobs + entry.jobs_count
    _say_where(output, number, jobs)
    if number < details["points"]:
        of = numbers.counted(details["points"], "point")
        shell.say(f"{number:,} of {of}: the others have not been expanded")
    return exits.Exit.OK


@contextlib.contextmanager
def _written(
    output: _Output, columns: "Columns", table: "listing.Table"
) -> "Iterator[Callable[[listing.Entry], None]]":
    """Yields a function that writes a point."""
    from ems_worker.cli import export, listing

    if output.kind is PointFormat.TABLE:
        if output.safe:
            raise exits.Misused("--safe-for-spreadsheets needs --format csv")
        yield table.show
        table.flush()
        return
    with export.rows(Format(output.kind.value), output.file, columns, safe=output.safe) as add_row:

        def add(entry: "listing.Entry") -> None:
            for row in listing.rows(entry, each_job=output.each_job):
                add_row(row)

        yield add


def _say_where(output: _Output, points: int, jobs: int) -> None:
    if output.file is not None:
        what = numbers.counted(jobs, "job") if output.each_job else numbers.counted(points, "point")
        shell.say(f"{what} in {output.file}")
