"""A plan for another model version than the orchestrator runs is rejected; a plan that was accepted before waits."""

from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.service import dispatch, submit
from tests.support import wait
from tests.support.desk import Desk, background, plan, quiet
from tests.support.played import capacity

NEW = plan("new", model_version="reef-2")


async def test_a_plan_for_another_version_than_the_orchestrators_is_rejected(tmp_path: Path) -> None:
    """The error is at the key and has both versions. A plan that was accepted earlier is still a duplicate."""
    async with Desk.open(tmp_path) as desk:
        desk.versions.reported = "reef-2"
        assert (await desk.submit(NEW))["decision"] == "accepted"
        desk.versions.reported = "reef-3"
        assert (await desk.submit(NEW))["decision"] == "duplicate"
        text = b"experiment_id: other\nbase_config: {food: 1}\nmodel_version: reef-2\n"
        decision = await desk.submit(text)
        assert decision["decision"] == "rejected"
        [problem] = decision["errors"]
        assert (problem["code"], problem["line"], problem["column"]) == ("model_version", 3, 16)
        assert "'reef-2'" in problem["message"]
        assert "'reef-3'" in problem["message"]


@pytest.mark.parametrize("reported", ["", None])
async def test_the_decision_has_a_warning_if_the_version_is_not_known(tmp_path: Path, reported: str | None) -> None:
    """The plan is accepted. A plan without `model_version` has no warning."""
    async with Desk.open(tmp_path) as desk:
        desk.versions.reported = reported
        decision = await desk.submit(NEW)
        assert decision["decision"] == "accepted"
        assert [warning["code"] for warning in decision["warnings"]] == ["model_version"]
        assert (await desk.submit(plan()))["warnings"] == []


async def test_no_run_of_a_plan_starts_until_the_orchestrator_reports_its_version(tmp_path: Path) -> None:
    """The status has the reason, and plans without a version continue."""
    async with Desk.open(tmp_path, run_window=50) as desk, background(desk.dispatcher.run()):
        new = await desk.begin(NEW)
        other = await desk.begin(plan("other"))
        await wait.until(lambda: other.open == 2)
        assert new.open == 0
        assert "has not reported its version yet" in (await desk.report("new"))["reason"]
        desk.orchestrator.capacities.put_nowait(capacity(100, "reef-1"))
        await wait.until(lambda: desk.versions.reported == "reef-1")
        await quiet(desk)
        reason = "paused: waiting for model version 'reef-2'; the orchestrator runs 'reef-1'"
        assert (await desk.report("new"))["reason"] == reason
        assert (await desk.report("other"))["reason"] is None
        assert new.open == 0
        desk.orchestrator.capacities.put_nowait(capacity(100, "reef-2"))
        await wait.until(lambda: new.open == 2)
        assert (await desk.report("new"))["reason"] is None


async def test_the_version_is_unknown_while_the_orchestrator_is_away(tmp_path: Path) -> None:
    """It may return with another version, so runs wait for its report or until the time limit for the report passes."""
    with patch.object(dispatch, "_READY_POLL_SECONDS", 0.01), patch.object(dispatch, "_REPORT_SECONDS", 0.01):
        async with Desk.open(tmp_path, run_window=1) as desk, background(desk.dispatcher.run()):
            desk.orchestrator.capacities.put_nowait(capacity(100, "reef-2"))
            live = await desk.begin(NEW)
            await wait.until(lambda: live.open == 1)
            desk.orchestrator.is_ready = False
            desk.orchestrator.capacities.put_nowait(None)
            await wait.until(lambda: desk.versions.reported is None)
            await desk.hear("completed", "new-p000000-r000-a1")
            await quiet(desk)
            assert live.open == 0
            desk.orchestrator.is_ready = True
            await wait.until(lambda: live.open == 1)
            assert desk.versions.reported == ""


async def test_an_orchestrator_that_reports_no_version_gets_the_runs(tmp_path: Path) -> None:
    """The worker can't check the version."""
    async with Desk.open(tmp_path) as desk, background(desk.dispatcher.run()):
        desk.orchestrator.capacities.put_nowait(None)
        live = await desk.begin(NEW)
        await wait.until(lambda: live.open == 2)


async def test_after_a_restart_unsent_runs_wait_for_their_version_and_delay_no_others(tmp_path: Path) -> None:
    """They are sent again once the orchestrator runs their version."""
    async with Desk.open(tmp_path) as desk:
        live, other = await desk.begin(NEW), await desk.begin(plan("other"))
        await desk.claim(live, 2)
        await desk.claim(other, 2)
    with (
        patch.object(submit, "_FIRST_PAUSE_SECONDS", 0.01),
        patch.object(submit, "_MAX_PAUSE_SECONDS", 0.02),
        patch.object(submit, "BATCH", 2),
    ):
        async with Desk.open(tmp_path) as desk:
            desk.versions.reported = "reef-1"
            unsent = sorted(desk.unsent, key=lambda pair: pair[0].experiment_id)
            async with background(desk.submitter.resend(unsent)):
                await wait.until(lambda: len(desk.orchestrator.sent) == 2)
                assert {name.partition("-")[0] for name in desk.orchestrator.sent} == {"other"}
                desk.versions.reported = "reef-2"
                await wait.until(lambda: len(desk.orchestrator.sent) == 4)
