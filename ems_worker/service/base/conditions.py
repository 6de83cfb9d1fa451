"""`where`, as requests have it: reads the condition, says what it may use of a job, finds the jobs that match."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from ems_worker import errors
from ems_worker.core.language import quotes, version
from ems_worker.core.language import where as language
from ems_worker.core.language.expressions import ExpressionError
from ems_worker.core.language.where import Facts, Where
from ems_worker.core.lifecycle import job, tally
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import JobRow

# Point, replicate and attempt of the last job of a page.
Position = tuple[int, int, int]
# How many jobs are read at once. For one reply so many are looked through that a client's patience isn't tried; the
# longer the condition, the fewer.
_READ = 100
_MOST = 2_000
_MOST_CHARACTERS = 200_000


def read(text: str | None, parameters: Mapping[str, str] | None, written_in: int) -> Where | None:
    """The condition of a request about an experiment with these parameters, by name; None without a text.

    `written_in` is the version of the plan language in which it was requested. Raises errors.RequestRefused with the
    reason and the nearest name, or if this worker may read it in another way.
    """
    if text is None:
        return None
    if written_in > version.VERSION or version.changes_expressions(written_in):
        raise errors.RequestRefused(
            f"where: {quotes.brief(text)} was requested under version {written_in} of the plan language, and this "
            f"worker's version {version.VERSION} may read it in another way: request again what is still to be done"
        )
    try:
        return language.read(text, dict(parameters or {}))
    except ExpressionError as error:
        hint = f"; did you mean {error.suggestion}?" if error.suggestion else ""
        raise errors.RequestRefused(f"where: {error}{hint}") from None


def facts(run: Run) -> Facts:
    """What a condition may use of a job, or of one of its attempts, besides its point."""
    return Facts(
        state=str(tally.job_state(run)),
        error_kind=job.error_kind(run),
        point=run.point,
        replicate=run.replicate,
        attempt=run.attempt,
        host=run.host,
    )


async def page(
    read: Callable[[Position, int], Awaitable[Sequence[JobRow]]], after: Position, limit: int, condition: Where | None
) -> tuple[list[JobRow], Position | None]:
    """At most `limit` of the next jobs for which the condition holds, and where to go on; None after the last job.

    `read` returns the next jobs after a position, at most as many as asked for. Where few jobs match, a page may be
    short, or empty, and yet not the last.
    """
    if condition is None:
        rows = list(await read(after, limit))
        return rows, _position(rows[-1]) if len(rows) == limit else None
    found: list[JobRow] = []
    for _ in range(0, min(_MOST, _MOST_CHARACTERS // len(condition.text)), _READ):
        rows = list(await read(after, _READ))
        for row in rows:
            # A single job may take milliseconds.
            await asyncio.sleep(0)
            if condition.holds(row.point.params, row.point.labels or {}, facts(row.run)):
                found.append(row)
                if len(found) == limit:
                    return found, _position(row)
        if len(rows) < _READ:
            return found, None
        after = _position(rows[-1])
    return found, after


def _position(row: JobRow) -> Position:
    return row.run.point, row.run.replicate, row.run.attempt
