"""Rounds that an extension or a retry begins settle by their own jobs."""

from pathlib import Path
from typing import Any

import pytest

from ems_worker.core.lifecycle.run import StopReason
from tests.service.test_settle import finish, pass_time
from tests.support.desk import Clock, Desk, plan


@pytest.mark.parametrize("kept_open", [False, True])
async def test_an_extension_is_a_round_of_its_own_once_the_last_one_settled(tmp_path: Path, kept_open: bool) -> None:
    """Its quorum is one of its own jobs, so that the first of them aren't stragglers of the rounds before."""
    settle: dict[str, Any] = {"quorum": "75%", "grace_seconds": 5, "stragglers": "cancel"}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=8, settle=settle, keep_open=kept_open))
        await desk.complete(await desk.launch(live), range(8))
        await desk.report("reef")
        assert live.ended is not kept_open
        assert (await desk.steer("extend", add={"food": [100, 101, 102, 103]}))["round"] == 2
        await finish(desk)
        [live] = desk.ledger.experiments()
        *most, last = await desk.launch(live)
        assert len(most) == 3
        assert len(await pass_time(desk, clock, 60)) == 1
        await desk.complete(most, range(3))
        await desk.report("reef")
        [_, second] = await pass_time(desk, clock, 5)
        assert (second["round"], second["reason"], second["stragglers"]) == (2, "quorum", 1)
        await desk.services.executor.finish(live)
        assert (await desk.row(last)).run.stop_reason is StopReason.STRAGGLER


async def test_a_retry_settles_by_the_jobs_that_it_takes(tmp_path: Path) -> None:
    """All of them count again, also over a restart of the worker."""
    settle: dict[str, Any] = {"quorum": "50%", "grace_seconds": 5, "stragglers": "cancel"}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=8, settle=settle, limits={"max_attempts": 1}))
        names = await desk.launch(live)
        await desk.complete(names[4:], range(4))
        for name in names[:4]:
            await desk.hear("failed", name, error_kind="simulation")
        await desk.report("reef")
        assert (await desk.steer("retry"))["round"] == 2
        first, *_ = await desk.launch(live)
        await desk.complete([first], [1])
    async with Desk.open(tmp_path, clock) as desk:
        assert await pass_time(desk, clock, 60) == []
        await desk.complete(["reef-p000001-r000-a2"], [1])
        await finish(desk)
        [second] = await pass_time(desk, clock, 5)
        assert (second["round"], second["reason"], second["stragglers"]) == (2, "quorum", 2)
