"""`model_version`: a plan for another version of the model than the orchestrator's is refused, or waits."""

import asyncio
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.core.wire import Capacity
from ems_worker.service import dispatch, submit
from tests.support import wait
from tests.support.desk import Desk, background, plan

NEW = plan("new", model_version="reef-2")


def told(version: str) -> Capacity:
    """What an orchestrator of this version says."""
    return Capacity(100, 0, version)


async def test_another_version_than_the_orchestrators_is_rejected_at_its_key(tmp_path: Path) -> None:
    """With both versions; a plan that was accepted before stays accepted, whatever version has come since."""
    async with Desk.open(tmp_path) as desk:
        desk.versions.told = "reef-2"
        assert (await desk.submit(NEW))["decision"] == "accepted"
        desk.versions.told = "reef-3"
        assert (await desk.submit(NEW))["decision"] == "duplicate"
        text = b"experiment_id: other\nbase_config: {food: 1}\nmodel_version: reef-2\n"
        decision = await desk.submit(text)
        assert decision["decision"] == "rejected"
        [problem] = decision["errors"]
        assert (problem["code"], problem["line"], problem["column"]) == ("model_version", 3, 16)
        assert "'reef-2'" in problem["message"]
        assert "'reef-3'" in problem["message"]


@pytest.mark.parametrize("told", ["", None])
async def test_where_no_version_is_told_the_decision_warns(tmp_path: Path, told: str | None) -> None:
    """The plan is accepted; a plan that asks for none gets no warning."""
    async with Desk.open(tmp_path) as desk:
        desk.versions.told = told
        decision = await desk.submit(NEW)
        assert decision["decision"] == "accepted"
        assert [one["code"] for one in decision["warnings"]] == ["model_version"]
        assert (await desk.submit(plan()))["warnings"] == []


async def test_nothing_is_started_while_another_version_is_there(tmp_path: Path) -> None:
    """Nor before the version is known; the status says what is waited for, and others go on."""
    async with Desk.open(tmp_path, window=50) as desk, background(desk.dispatcher.run()):
        new = await desk.begin(NEW)
        other = await desk.begin(plan("other"))
        await wait.until(lambda: other.open == 2)
        assert new.open == 0
        assert "has not told its version yet" in (await desk.report("new"))["reason"]
        desk.orchestrator.told.put_nowait(told("reef-1"))
        await wait.until(lambda: desk.versions.told == "reef-1")
        await asyncio.sleep(0.05)
        words = "paused: waits for model version 'reef-2'; the orchestrator runs 'reef-1'"
        assert (await desk.report("new"))["reason"] == words
        assert (await desk.report("other"))["reason"] is None
        assert new.open == 0
        desk.orchestrator.told.put_nowait(told("reef-2"))
        await wait.until(lambda: new.open == 2)
        assert (await desk.report("new"))["reason"] is None


async def test_an_orchestrator_that_went_away_may_come_back_as_another(tmp_path: Path) -> None:
    """So its version counts no more until it is told again, or turns out not to be told."""
    with patch.object(dispatch, "_LOOK_SECONDS", 0.01), patch.object(dispatch, "_TELL_SECONDS", 0.01):
        async with Desk.open(tmp_path, window=1) as desk, background(desk.dispatcher.run()):
            desk.orchestrator.told.put_nowait(told("reef-2"))
            live = await desk.begin(NEW)
            await wait.until(lambda: live.open == 1)
            desk.orchestrator.is_ready = False
            desk.orchestrator.told.put_nowait(None)
            await wait.until(lambda: desk.versions.told is None)
            await desk.hear("completed", "new-p000000-r000-a1")
            await asyncio.sleep(0.05)
            assert live.open == 0
            desk.orchestrator.is_ready = True
            await wait.until(lambda: live.open == 1)
            assert desk.versions.told == ""


async def test_an_orchestrator_that_never_tells_gets_the_runs(tmp_path: Path) -> None:
    """It can't be asked."""
    async with Desk.open(tmp_path) as desk, background(desk.dispatcher.run()):
        desk.orchestrator.told.put_nowait(None)
        live = await desk.begin(NEW)
        await wait.until(lambda: live.open == 2)


async def test_runs_that_were_on_their_way_wait_for_their_version_and_hold_up_no_others(tmp_path: Path) -> None:
    """After a restart they are sent again, but not to another version."""
    async with Desk.open(tmp_path) as desk:
        live, other = await desk.begin(NEW), await desk.begin(plan("other"))
        await desk.ledger.claim(live.key, 2)
        await desk.ledger.claim(other.key, 2)
    with (
        patch.object(submit, "_FIRST_PAUSE_SECONDS", 0.01),
        patch.object(submit, "_LONGEST_PAUSE_SECONDS", 0.02),
        patch.object(submit, "BATCH", 2),
    ):
        async with Desk.open(tmp_path) as desk:
            desk.versions.told = "reef-1"
            unsent = sorted(desk.unsent, key=lambda one: one[0].experiment_id)
            async with background(desk.submitter.resend(unsent)):
                await wait.until(lambda: len(desk.orchestrator.sent) == 2)
                assert {name.partition("-")[0] for name in desk.orchestrator.sent} == {"other"}
                desk.versions.told = "reef-2"
                await wait.until(lambda: len(desk.orchestrator.sent) == 4)
