"""What people call experiments and runs: ids, unique beginnings of ids, names, `@latest`.

An experiment is named by its id, its name, the beginning of its id if no other id begins with it, or `@latest`. A run
is named by its simulation id, or without `-aN` by its job, whose last attempt it then is. The numbers of a job may be
short (`reef-p3-r0`), its experiment may be named in any of these ways, and what there is only one of may be left out.

Answers of the worker are checked here: what is not an id, or doesn't answer the question, names nothing.
"""

import contextlib
import re
from collections.abc import AsyncGenerator, Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ems_worker import errors
from ems_worker.cli import numbers
from ems_worker.core import ids
from ems_worker.core.language import suggestions
from ems_worker.terminal import text

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

LATEST: Final = "@latest"
# What one request to the worker returns, and how many of the newest experiments are searched for similar names.
_PAGE = 64
_SEARCHED = 256
# Characters of a beginning that is compared with others.
_LEAST = 3
# Ids in a message.
_NAMED = 5
_JOB: Final = re.compile(
    r"(?P<experiment>.+?)(?:-p(?P<point>[0-9]{1,10})(?:-r(?P<replicate>[0-9]{1,7})(?:-a(?P<attempt>[0-9]{1,9}))?)?)?-?"
)
_WIDTH: Final = {"point": 6, "replicate": 3}


class _Job(NamedTuple):
    """A run's name in its parts; None for what is left out."""

    experiment: str
    point: str | None = None
    replicate: str | None = None
    attempt: str | None = None


class _Part(NamedTuple):
    """A number in a run's name: what it counts, what was written of it, how many there are."""

    noun: str
    written: str | None
    there_are: int


async def experiment(ems: "client.EmsClient", name: str) -> str:
    """The id of the experiment that a person means. Raises errors.NotFound unless it is exactly one."""
    if (found := await _found(ems, name)) is not None:
        return found
    if _is_like_a_run(name):
        with contextlib.suppress(errors.NotFound):
            parsed = ids.parse_simulation_id(await run(ems, name))
            assert parsed is not None
            where = f"--where 'point == {parsed.point} and replicate == {parsed.replicate}'"
            raise errors.RequestRefused(
                f"{text.line(name)} is a run of {parsed.experiment_id}: name that, with {where}"
            )
    return await _unknown(ems, name)


async def experiment_or_group(ems: "client.EmsClient", name: str) -> tuple[str | None, str | None]:
    """The id of an experiment, else a group. A group may be written with a slash, as `ems ls` shows it."""
    group = name.removesuffix("/")
    if group == name:
        try:
            if (found := await _found(ems, name)) is not None:
                return found, None
        except errors.NotFound:  # it begins several ids
            if not await _is_group(ems, group):
                raise
    if await _is_group(ems, group):
        return None, group
    return await _unknown(ems, name), None


async def experiment_or_run(ems: "client.EmsClient", name: str) -> tuple[str, str | None]:
    """The id of an experiment and None, or of a run's experiment and the run."""
    if (found := await _found(ems, name)) is not None:
        return found, None
    named = await run(ems, name) if _is_like_a_run(name) else None
    parsed = None if named is None else ids.parse_simulation_id(named)
    return (await _unknown(ems, name), None) if parsed is None else (parsed.experiment_id, named)


def _is_like_a_run(name: str) -> bool:
    match = _JOB.fullmatch(name)
    return match is not None and match["point"] is not None


async def run(ems: "client.EmsClient", name: str) -> str:
    """The simulation id of the run that a person means. Raises errors.NotFound unless it is exactly one."""
    match = _JOB.fullmatch(name)
    if match is None:
        raise errors.NotFound(f"there is no run {text.line(name)}")
    job = _Job(*match.groups())
    if job.replicate is None and await _is_id(ems, name):  # the experiment itself is called `heat-p5`
        job = _Job(name)
    experiment_id = await _found(ems, job.experiment)
    if experiment_id is None:
        return await _unknown(ems, job.experiment, "run", name[len(job.experiment) :])
    if ids.parse_simulation_id(name) is not None and experiment_id == job.experiment:
        return name
    details = await ems.get(experiment_id)
    point = _number(name, experiment_id, _Part("point", job.point, details["points"]))
    of = f"{experiment_id}-p{point:06d}"
    replicate = _number(name, of, _Part("replicate", job.replicate, details["replicates"]))
    if job.attempt is not None:
        return ids.simulation_id(experiment_id, point, replicate, int(job.attempt))
    async with contextlib.aclosing(ems.jobs(experiment_id, point=point, replicate=replicate, attempts=True)) as jobs:
        attempts = [job["attempt"] async for job in jobs]
    if not attempts:
        raise errors.NotFound(f"there is no run {text.line(name)} yet: {experiment_id} is still being expanded")
    return ids.simulation_id(experiment_id, point, replicate, int(attempts[-1]))


async def _found(ems: "client.EmsClient", name: str) -> str | None:
    """The id of an experiment; None if there is none. Raises errors.NotFound if there are several."""
    if name == LATEST:
        newest = await _ids(ems, 1)
        if not newest:
            raise errors.NotFound("there are no experiments")
        return newest[0]
    if not name or name.startswith("@"):
        raise errors.NotFound(f"there is no experiment {text.line(name)}; {LATEST} is the newest one")
    try:
        like = [status async for status in _first(ems, _PAGE, like=name)]
    except errors.WorkerUnavailable:
        # What needs no worker, such as the last status, is still there for a whole id.
        if ids.EXPERIMENT_ID.fullmatch(name):
            return name
        raise
    begun = [found for found in map(_id, like) if found.startswith(name)]
    if name in begun:
        return name
    if len(like) == _PAGE and ids.EXPERIMENT_ID.fullmatch(name) and await _exists(ems, name):
        return name
    called = [_id(status) for status in like if status.get("experiment_name") == name]
    for found, how in ((called, "are called"), (begun, "begin with")):
        if len(found) == 1:
            return found[0]
        if found:
            at_least = f"{len(found):,} or more" if len(like) == _PAGE else f"{len(found):,}"
            raise errors.NotFound(f"{at_least} experiments {how} {text.line(name)}: {_some(found)}")
    return None


async def _unknown(ems: "client.EmsClient", name: str, noun: str = "experiment", rest: str = "") -> str:
    """Raises errors.NotFound, with the id or name that is most similar. `rest` follows the name."""
    known: dict[str, str] = {}
    async for status in _first(ems, _SEARCHED):
        names = [_id(status), *(status.get(key) for key in ("experiment_name", "group"))]
        for whole in (text.line(one) for one in names if isinstance(one, str) and one):
            known[whole] = whole
            if len(name) >= _LEAST:  # it may be a misspelt beginning
                known.setdefault(whole[: len(name)], whole)
    nearest = suggestions.nearest(name, known)
    similar = known[nearest] if nearest else None
    hint = f"; did you mean {similar}{text.line(rest)}?" if similar else ""
    reason = f"there is no {noun} {text.line(name + rest)}"
    if noun == "experiment" and ids.EXPERIMENT_ID.fullmatch(name):
        try:
            await ems.get(name)
        except errors.NotFound as missing:  # which may say more, such as that it was removed
            reason = str(missing)
    raise errors.NotFound(f"{reason}{hint}")


def _number(name: str, of: str, part: _Part) -> int:
    """The number of a point or a replicate from what was written of it."""
    many = f"{of} has {numbers.counted(part.there_are, part.noun)}"
    nothing = f"there is no run {text.line(name)}: {many}, from 0 to {part.there_are - 1:,}"
    letter, width = part.noun[0], _WIDTH[part.noun]
    example = f"{of}-{letter}{0:0{width}d}{'-r000' if part.noun == 'point' else ''}"
    if part.written is None:
        if part.there_are == 1:
            return 0
        raise errors.NotFound(f"{text.line(name)} is more than one run: {many}; name one, such as {example}")
    number = int(part.written)
    short = part.written == "0" or not part.written.startswith("0")
    if short or len(part.written) >= width:
        if number < part.there_are:
            return number
        raise errors.NotFound(nothing)
    # The beginning of a number with all its zeros.
    scale = 10 ** (width - len(part.written))
    among = range(number * scale, min((number + 1) * scale, part.there_are))
    if len(among) == 1:
        return among[0]
    if among:
        raise errors.NotFound(f"{text.line(name)} is more than one run: {len(among):,} begin with it")
    raise errors.NotFound(nothing)


async def _is_id(ems: "client.EmsClient", name: str) -> bool:
    with contextlib.suppress(errors.NotFound):
        return await _found(ems, name) == name
    return False


async def _is_group(ems: "client.EmsClient", name: str) -> bool:
    return bool(name) and [status async for status in _first(ems, 1, group=name)] != []


async def _exists(ems: "client.EmsClient", experiment_id: str) -> bool:
    try:
        await ems.get(experiment_id)
    except errors.NotFound:
        return False
    return True


async def _ids(ems: "client.EmsClient", limit: int) -> list[str]:
    return [found async for status in _first(ems, limit) if (found := _id(status))]


async def _first(ems: "client.EmsClient", limit: int, **which: Any) -> AsyncGenerator[Document, None]:
    """The newest experiments."""
    async with contextlib.aclosing(ems.experiments(**which)) as listed:
        count = 0
        async for status in listed:
            yield status
            count += 1
            if count == limit:
                return


def _id(status: Document) -> str:
    """The id of an experiment; empty if it is none."""
    found = status.get("experiment_id")
    return found if isinstance(found, str) and ids.EXPERIMENT_ID.fullmatch(found) else ""


def _some(found: Sequence[str]) -> str:
    named: Iterable[str] = islice(found, _NAMED)
    return ", ".join(named) + (", ..." if len(found) > _NAMED else "")
