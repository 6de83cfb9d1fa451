"""Recovery at the start, in particular of experiments whose plans this worker can't read."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import version
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.service.intake import check, loading
from ems_worker.service.recovery import recover
from tests.support.desk import Clock, Desk, plan

# A plan that needs an optional dependency.
SAMPLED: dict[str, Any] = {
    "parameter_space": {"food": {"dist": "int", "low": 0, "high": 9}},
    "design": {"sampler": "lhs", "samples": 2},
    "limits": {"max_attempts": 1, "max_failed": 2},
}


def uninstall_scipy(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(sys.modules, "scipy.stats", None)


async def test_only_the_experiment_whose_plan_cannot_be_read_as_accepted_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other experiments continue. Events of its runs are parked until a worker starts that can read the plan."""
    async with Desk.open(tmp_path) as desk:
        sampled = await desk.begin(plan("sampled", **SAMPLED))
        first, second = await desk.launch(sampled)
        other = await desk.begin(plan("other"))
        names = await desk.launch(other)
        await desk.ledger.flush()
    with monkeypatch.context() as without, structlog.testing.capture_logs() as logs:
        uninstall_scipy(without)
        async with Desk.open(tmp_path) as desk:
            assert [live.experiment_id for live in desk.ledger.experiments()] == ["other"]
            [left_out] = [line for line in logs if line["event"] == "experiment.left_out"]
            assert (left_out["log_level"], left_out["experiment_id"]) == ("error", "sampled")
            assert "pip install 'ems-worker[design]'" in left_out["reason"]
            assert "Run a worker of the version" in left_out["reason"]
            assert "accepted: sampled; the log has the reasons" in str(recover.problem(desk.ledger))
            await desk.hear("completed", first, metrics={"population": 1})
            for name in names:
                await desk.hear("completed", name, metrics={"population": 1})
            assert (await desk.report("other"))["state"] == "completed"
            assert (await desk.row(first)).run.state is RunState.SUBMITTED
            await desk.tracker.retry_parked(0)
            assert [event.simulation_id for event in await desk.manifest.parked()] == [first]
    async with Desk.open(tmp_path) as desk:
        assert recover.problem(desk.ledger) is None
        await desk.tracker.retry_parked(0)
        await desk.hear("completed", second, metrics={"population": 2})
        assert (await desk.report("sampled"))["counts"]["completed"] == 2


async def test_requests_that_need_an_unreadable_plan_are_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These are changes and configurations of runs, and changes after a restore. Other members of its group change.

    Another plan with the same id is a conflict, as usual.
    """
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan("sampled", group="study", **SAMPLED))
        first, second = await desk.launch(live)
        await desk.hear("completed", second, metrics={"population": 1})
        published = await desk.steer("set", "sampled", priority=1)
    uninstall_scipy(monkeypatch)
    async with Desk.open(tmp_path) as desk:
        change = json.dumps({"request_id": "r", "experiment_id": "sampled"}).encode()
        for verb in ("retry", "resume"):
            with pytest.raises(errors.RequestRefused, match="needs scipy"):
                await desk.services.control.handlers()[verb](change)
        assert not await desk.services.replay.changes.apply("sampled", published, documents=2)
        await desk.submit(plan("plain", group="study"), seq=8)
        grouped = await desk.steer("pause", group="study")
        said = {change["experiment_id"]: (change["changed"], change["refused"]) for change in grouped["changes"]}
        assert said == {"plain": (True, False), "sampled": (False, True)}
        queries = desk.services.queries.handlers()
        with pytest.raises(errors.RequestRefused, match="needs scipy"):
            await queries["config"](json.dumps({"simulation_id": first}).encode())
        assert json.loads(await queries["get"](b'{"experiment_id": "sampled"}'))["points"] == 2
        conflict = await desk.submit(plan("sampled"), seq=9)
        assert [problem["code"] for problem in conflict["errors"]] == ["conflict"]
        assert "exists with another plan" in conflict["errors"][0]["message"]


async def test_a_late_event_of_an_experiment_that_cannot_be_loaded_is_parked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other events of its batch are applied."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan("sampled", **SAMPLED))
        first, second = await desk.launch(live)
        await desk.ledger.hear([((live.key, 0, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST, "silent"))])
        await desk.hear("completed", second, metrics={"population": 1})
        assert (await desk.report("sampled"))["state"] == "completed"
        assert desk.ledger.experiments() == []
        (name, _) = await desk.launch(await desk.begin(plan("other")))
        with structlog.testing.capture_logs() as logs, monkeypatch.context() as without:
            uninstall_scipy(without)
            events = [{"simulation_id": run_name, "metrics": {"population": 3}} for run_name in (first, name)]
            await desk.tracker.track([desk.message("sim.run_completed", event) for event in events])
            await desk.tracker.retry_parked(0)
        assert [line["experiment_id"] for line in logs if line["event"] == "experiment.left_out"] == ["sampled"]
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert [event.simulation_id for event in await desk.manifest.parked()] == [first]


async def test_a_plan_that_now_has_another_number_of_points_is_not_expanded_further(tmp_path: Path) -> None:
    """The remaining points would not match the recorded ones. Once all are recorded the number doesn't matter."""
    async with Desk.open(tmp_path, Clock()) as desk:
        live = await desk.begin(plan(points=3))
        record = replace(live.record, spec=replace(live.record.spec, points=2))
        whole = await recover.read(record, desk.manifest, loading.load(record.spec, yaml_reader), yaml_reader)
        assert whole.plan.grid.total == 3
        half = replace(record, expanded_points=1)
        with pytest.raises(errors.PlanNotReadAsAccepted, match="it has 3 points now, and had 2"):
            await recover.read(half, desk.manifest, loading.load(half.spec, yaml_reader), yaml_reader)


async def test_a_recorded_plan_that_is_not_text_is_an_unreadable_plan(tmp_path: Path) -> None:
    """The error names the experiment."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        with pytest.raises(errors.PlanNotReadAsAccepted, match="reef as it was accepted: this is not text in UTF-8"):
            check.stored(replace(live.record.spec, plan=b"\xff"), yaml_reader)


async def test_a_plan_in_a_later_version_of_the_language_is_an_unreadable_plan(tmp_path: Path) -> None:
    """Reading it by the rules of this version could mean other points."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan())
        assert live.record.spec.language == version.VERSION
        later = replace(live.record.spec, language=version.VERSION + 1)
        reason = f"reef as it was accepted: it is in version {later.language} of the plan language"
        with pytest.raises(errors.PlanNotReadAsAccepted, match=reason):
            check.loaded(later, yaml_reader)


async def test_only_some_of_many_unreadable_experiments_are_named(tmp_path: Path) -> None:
    """The message has the number of the other experiments, so it stays short."""
    async with Desk.open(tmp_path) as desk:
        for number in range(12):
            desk.ledger.mark_unreadable(f"e{number}", errors.PlanNotReadAsAccepted("why"))
        message = recover.problem(desk.ledger)
        assert message is not None
        assert "e9 and 2 more" in message
