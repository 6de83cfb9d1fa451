"""Shell completion of ids. Whatever goes wrong, nothing is completed, and nothing is said."""

import contextlib
import os
from collections.abc import AsyncGenerator, Callable
from typing import TYPE_CHECKING, Any

from ems_worker.core import ids

if TYPE_CHECKING:
    from ems_worker import client

# A person waits for this: connecting and each answer take at most so long, and all of it twice that.
_SECONDS = 0.5
# How many ids are offered, and how many experiments and runs are looked through for them.
_MOST = 50
_LOOKED_AT = 500

_Search = Callable[["client.EmsClient", str], AsyncGenerator[tuple[str, str], None]]


def experiments(ctx: Any, args: list[str], incomplete: str) -> list[tuple[str, str]]:
    """The experiments whose ids begin with this, the newest first, each with its state and its name."""
    return _found(ctx, incomplete, _experiments)


def runs(ctx: Any, args: list[str], incomplete: str) -> list[tuple[str, str]]:
    """The runs whose ids begin with this; as long as no experiment is named, the ids of experiments."""
    return _found(ctx, incomplete, _runs)


def _found(ctx: Any, incomplete: str, search: _Search) -> list[tuple[str, str]]:
    import asyncio

    from ems_worker import client, settings

    async def ask() -> list[tuple[str, str]]:
        found: list[tuple[str, str]] = []
        given = {name: ctx.params.get(name) for name in ("server", "context")}
        access = settings.access(given, os.environ)
        with contextlib.suppress(TimeoutError):
            async with (
                asyncio.timeout(2 * _SECONDS),
                client.EmsClient(access, connect_timeout=_SECONDS, request_timeout=_SECONDS) as ems,
                contextlib.aclosing(search(ems, incomplete)) as matches,
            ):
                async for match in matches:
                    found.append(match)
                    if len(found) == _MOST:
                        break
        return found

    try:
        return asyncio.run(ask())
    except Exception:  # noqa: BLE001 - an error in the middle of a line that is being typed helps nobody
        return []


async def _experiments(ems: "client.EmsClient", incomplete: str) -> AsyncGenerator[tuple[str, str], None]:
    number = 0
    async with contextlib.aclosing(ems.experiments()) as listed:
        async for status in listed:
            name, number = status["experiment_id"], number + 1
            # A shell gets these: an id has no character that it would interpret.
            if ids.EXPERIMENT_ID.fullmatch(name) and name.startswith(incomplete):
                yield name, str(status["state"])
            if number == _LOOKED_AT:
                return


async def _runs(ems: "client.EmsClient", incomplete: str) -> AsyncGenerator[tuple[str, str], None]:
    experiments = [match async for match in _experiments(ems, incomplete)]
    if len(experiments) > 1:
        for name, state in experiments:
            yield f"{name}-p", state
        return
    # A shell puts a space after a single match, so it has to be a whole id.
    experiment_id = experiments[0][0] if experiments else incomplete.rpartition("-p")[0]
    number = 0
    async with contextlib.aclosing(ems.jobs(experiment_id)) as jobs:
        async for job in jobs:
            name, number = job["simulation_id"], number + 1
            if ids.parse_simulation_id(name) is not None and name.startswith(incomplete):
                yield name, str(job["state"])
            if number == _LOOKED_AT:
                return
