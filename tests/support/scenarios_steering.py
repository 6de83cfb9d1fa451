"""Scenarios about STOP, PAUSE and a worker on hold; `wiring.py` has the others."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.service.intake.examination import Examined
from ems_worker.service.steering import extend
from tests.support import wait
from tests.support.desk import Desk, background, plan

# Within this time a service has to be woken, which would sleep much longer or for ever.
_SOON = 2.0
_NAME = "reef-p000000-r000-a1"


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
    async with Desk.open(directory) as desk, background(desk.services.executor.run()):
        await desk.launch(await desk.begin(plan(points=1)))
        desk.orchestrator.pause_code = "UNIMPLEMENTED"
        await desk.steer("pause", now=True)
        await wait.until(lambda: desk.broker.of("change"))
        await desk.suspension.check()
        await wait.until(lambda: desk.broker.of("change")[-1]["applied"], timeout=_SOON)
        assert (await desk.report("reef"))["reason"].endswith("the orchestrator can't pause runs: 1 goes on")


async def a_worker_on_hold_says_so_until_its_release(directory: Path) -> None:
    """Then it starts runs at once."""
    async with Desk.open(directory, hold=True) as desk, background(desk.dispatcher.run()):
        await desk.begin(plan(points=1))
        assert "resume --all" in str((await desk.report("reef"))["reason"])
        await wait.until(lambda: desk.dispatcher.idle)
        for dry_run in (True, False):
            request = json.dumps({"request_id": "release", "all": True, "dry_run": dry_run}).encode()
            assert json.loads(await desk.services.control.handlers()["resume"](request))["resumed"] is True
            assert desk.submitter.held is dry_run
        await wait.until(lambda: desk.orchestrator.sent == [_NAME], timeout=_SOON)


async def an_extension_over_the_orchestrators_message_limit_is_refused(directory: Path) -> None:
    """Its limit may be another one than when the plan was accepted."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan(base_config={"food": 1, "text": "x" * 500}))
        desk.orchestrator.message_limit = 600
        with pytest.raises(errors.RequestRefused, match="600"):
            await desk.steer("extend", replicates=2)


async def an_extension_goes_on_once_its_plan_is_examined(directory: Path) -> None:
    """The end of the examination has the executor look."""
    async with Desk.open(directory) as desk, background(desk.services.executor.run()):
        live, examine, begun = await desk.begin(plan()), desk.services.examiner.examine, asyncio.Event()

        @contextlib.asynccontextmanager
        async def late(data: bytes) -> AsyncIterator[Examined]:
            await begun.wait()
            async with examine(data) as examined:
                yield examined

        with patch.object(extend, "_EXAMINATION_SECONDS", 0.0), patch.object(desk.services.examiner, "examine", late):
            await desk.steer("extend", replicates=2)
            # The executor has nothing left to do.
            assert not await desk.services.executor.step(live)
            begun.set()
            await wait.until(lambda: not live.changes, timeout=_SOON)
        assert live.record.spec.jobs == 4


async def an_experiment_that_is_old_is_removed_after_its_export(directory: Path) -> None:
    """The change is published, and again when everything is deleted."""
    async with Desk.open(directory, retention="1d", manifest_export=False) as desk:
        names = await desk.launch(await desk.begin(plan(points=1)))
        await desk.complete(names, [1.0])
        await desk.report("reef")
        assert await desk.services.remover.expire() == 0
        desk.clock.seconds += 25 * 3600
        assert await desk.services.remover.expire() == 1
        assert desk.files == ["reef"]
        await desk.services.remover.purge()
        await desk.services.executor.publisher.publish()
        assert [document["applied"] for document in desk.broker.of("change")] == [False, True]
        assert await desk.manifest.experiment("reef") is None


ALL = (
    stop_waits_for_the_answer_to_a_start_call,
    a_pause_that_the_orchestrator_refuses_is_applied_and_is_a_reason,
    a_worker_on_hold_says_so_until_its_release,
    an_extension_over_the_orchestrators_message_limit_is_refused,
    an_extension_goes_on_once_its_plan_is_examined,
    an_experiment_that_is_old_is_removed_after_its_export,
)
