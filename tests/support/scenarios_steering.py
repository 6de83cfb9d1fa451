"""Scenarios of changes that people request, which need every callback that `services.build` connects for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from unittest.mock import patch

from ems_worker.service import expand
from tests.support import wait
from tests.support.desk import Desk, background, plan

# Within this time a service has to be woken, which would sleep much longer or for ever.
_SOON = 2.0
_NAME = "reef-p000000-r000-a1"


@asynccontextmanager
async def _steering(directory: Path) -> AsyncIterator[Desk]:
    """A worker that carries out changes in the background."""
    async with Desk.open(directory) as desk, background(desk.services.executor.run()):
        yield desk


async def _applied(desk: Desk) -> None:
    await wait.until(lambda: [change["applied"] for change in desk.broker.of("change")] == [False, True], timeout=_SOON)


async def a_change_is_applied_when_the_last_run_has_ended(directory: Path) -> None:
    """The end of the run, not a later look, has the executor publish that."""
    async with _steering(directory) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        await desk.steer("cancel")
        await wait.until(lambda: desk.broker.of("change"))
        await desk.hear("failed", name, error_kind="stopped")
        await _applied(desk)


async def jobs_that_are_expanded_after_a_change_are_judged(directory: Path) -> None:
    """Each chunk of them has the executor look."""
    with patch.object(expand, "_RUNS_PER_CHUNK", 1):
        async with _steering(directory) as desk:
            await desk.submit(plan(points=3))
            live = desk.ledger.live("reef")
            assert live is not None
            await desk.expander.expand(live)
            await desk.steer("cancel", where="food > 0")
            await wait.until(lambda: desk.broker.of("change"))
            while not live.expanded:
                await desk.expander.expand(live)
            await _applied(desk)
            assert desk.broker.of("change")[-1]["counts"] == {"pending": {"cancelled": 2}}


async def stop_waits_for_the_answer_to_a_start_call(directory: Path) -> None:
    """It must not overtake the start."""
    async with Desk.open(directory) as desk:
        live = await desk.begin(plan(points=1))
        desk.orchestrator.hung[_NAME] = asyncio.Event()
        launch = asyncio.create_task(desk.launch(live))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.steer("cancel")
        await desk.limits.check()
        stops = list(desk.orchestrator.stops)
        desk.orchestrator.hung.pop(_NAME).set()
        await launch
        assert stops == []


async def a_pause_that_the_orchestrator_refuses_is_applied_and_is_a_reason(directory: Path) -> None:
    """The refusal has the executor look."""
    async with _steering(directory) as desk:
        await desk.launch(await desk.begin(plan(points=1)))
        desk.orchestrator.pause_code = "UNIMPLEMENTED"
        await desk.steer("pause", now=True)
        await wait.until(lambda: desk.broker.of("change"))
        await desk.suspension.check()
        await _applied(desk)
        assert (await desk.report("reef"))["reason"] == "the orchestrator can't pause runs: 1 goes on"


async def a_worker_on_hold_says_so_until_its_release(directory: Path) -> None:
    """Then it starts runs at once."""
    async with Desk.open(directory, hold=True) as desk, background(desk.dispatcher.run()):
        await desk.begin(plan(points=1))
        assert "resume --all" in str((await desk.report("reef"))["reason"])
        await wait.until(lambda: desk.dispatcher.idle)
        request = json.dumps({"request_id": "release", "all": True}).encode()
        assert json.loads(await desk.services.control.handlers()["resume"](request))["resumed"] is True
        await wait.until(lambda: desk.orchestrator.sent == [_NAME], timeout=_SOON)


ALL = (
    a_change_is_applied_when_the_last_run_has_ended,
    jobs_that_are_expanded_after_a_change_are_judged,
    stop_waits_for_the_answer_to_a_start_call,
    a_pause_that_the_orchestrator_refuses_is_applied_and_is_a_reason,
    a_worker_on_hold_says_so_until_its_release,
)
