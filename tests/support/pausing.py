"""Experiments that are paused `now`, while their jobs run."""

from typing import Any

from ems_worker.service.ledger.live import Live
from tests.support.desk import Desk, plan

LIMIT: dict[str, Any] = {"limits": {"run_timeout_seconds": 60, "max_attempts": 1}}


async def running(desk: Desk, points: int = 1) -> tuple[Live, list[str]]:
    """An experiment whose jobs all run, each with a limit of a minute."""
    live = await desk.begin(plan(points=points, **LIMIT))
    names = await desk.launch(live)
    for name in names:
        await desk.hear("started", name)
    return live, names


async def suspended(desk: Desk, points: int = 1) -> tuple[Live, list[str]]:
    """The same, paused now, with each run suspended."""
    live, names = await running(desk, points)
    await desk.steer("pause", now=True)
    await desk.suspension.check()
    assert [row.run.suspended for row in await desk.rows("reef")] == [True] * points
    return live, names


async def unapplied(desk: Desk, live: Live) -> list[str]:
    """The verbs of the changes of which something is in flight."""
    await desk.services.executor.finish(live)
    return [change.verb for change in live.changes.values()]
