"""What an extension may not do is refused; what it may do has the limits of the new plan."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.service.ledger.live import Live
from ems_worker.service.steering import extend
from ems_worker.service.steering.matching import Matching
from tests.support import wait
from tests.support.desk import Desk, background, plan


def difference(document: dict[str, Any]) -> tuple[int, int, int]:
    """The numbers of points that a change added, withdrew and left."""
    return document["added"], document["withdrawn"], document["unchanged"]


def live(desk: Desk) -> Live:
    """The experiment, which is in memory."""
    found = desk.ledger.live("reef")
    assert found is not None
    return found


async def test_a_latin_hypercube_is_refused_with_the_reason(tmp_path: Path) -> None:
    """Nothing is recorded."""
    sampled = plan(design={"sampler": "lhs", "samples": 4})
    sampled["parameter_space"] = {"food": {"dist": "uniform", "low": 0.0, "high": 1.0}}
    async with Desk.open(tmp_path) as desk:
        await desk.begin(sampled)
        with pytest.raises(errors.RequestRefused, match=r"design\.samples: a latin hypercube"):
            await desk.steer("extend", samples=8, request_id="r-1")
        assert await desk.manifest.change_from("r-1", 0) is None
        # The same request may be repaired.
        assert difference(await desk.steer("extend", replicates=2, request_id="r-1")) == (0, 0, 4)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"plan": plan(points=3, group="other")}, "group: this differs from the experiment's plan"),
        ({"plan": plan("other", points=3)}, "the plan is of experiment other, and reef is extended"),
        ({"plan": "parameter_space: [1"}, "line 1"),
        ({"replicates": 1}, "the plan has 2 replicates already"),
        ({"samples": 8}, "the plan has no samples"),
        ({"add": {"foot": [7]}}, "'?foot'? is not an axis of the plan"),
        ({"add": {"food": []}}, r"add\.food: is empty"),
        ({"add": {"food": [float("nan")]}}, r"add\.food: numbers must be finite"),
        ({"add": {"food": [[{"a": float("inf")}]]}}, r"add\.food: numbers must be finite"),
        ({"add": {"food": [10**400]}}, r"^parameter_space\.food\.\d+: '999*\.\.\. is not a finite number|does not fit"),
        ({"plan": {**plan(), "num_replicates_per_run": float("nan")}}, "^plan: numbers must be finite"),
        ({"plan": [1]}, "^plan: should be the text of a plan, or an object"),
        ({"replicates": 100_000}, "at most 1,000"),
        ({"add": {"food": list(range(600))}}, "at most 1,000"),
    ],
)
async def test_what_may_not_differ_is_refused_with_its_path(
    tmp_path: Path, request_: dict[str, Any], message: str
) -> None:
    """Also when it is only tried, and nothing is recorded."""
    async with Desk.open(tmp_path, max_jobs=1000) as desk:
        await desk.begin(plan(points=300, replicates=2))
        for dry_run in (True, False):
            with pytest.raises(errors.RequestRefused, match=message):
                await desk.steer("extend", dry_run=dry_run, **request_)
        assert live(desk).record.plan_version == 1
        assert desk.broker.of("change") == []


async def test_the_jobs_of_all_versions_together_are_limited(tmp_path: Path) -> None:
    """The new plan alone would be small enough. It is refused after the change was recorded, in its last word."""
    async with Desk.open(tmp_path, max_jobs=10) as desk:
        await desk.begin(plan(points=8))
        other = plan(points=8)
        other["parameter_space"]["food"] = list(range(4, 12))
        with pytest.raises(errors.RequestRefused, match="the experiment would have 12 jobs"):
            await desk.steer("extend", plan=other, dry_run=True)
        reply = await desk.steer("extend", plan=other)
        assert (reply["changed"], reply["applied"]) == (False, True)
        assert reply["reason"].startswith("the experiment would have 12 jobs; this worker accepts at most 10")
        assert len(await desk.rows("reef")) == 8
        other["parameter_space"]["food"] = list(range(2, 10))
        assert difference(await desk.steer("extend", plan=other)) == (2, 0, 8)


async def test_the_open_jobs_of_a_publisher_are_limited(tmp_path: Path) -> None:
    """Those of its other experiments count; those of an experiment that has ended count again when it reopens."""
    async with Desk.open(tmp_path, max_open_jobs=6) as desk:
        running = await desk.begin(plan(points=2))
        await desk.begin(plan("other", points=3))
        with pytest.raises(errors.RequestRefused, match="and would have 7"):
            await desk.steer("extend", replicates=2, dry_run=True)
        reply = await desk.steer("extend", replicates=2)
        assert reply["reason"].startswith("its publisher may have 6 jobs in open experiments (EMS_MAX_OPEN_JOBS)")
        assert difference(await desk.steer("extend", add={"food": [0, 1, 2]})) == (1, 0, 2)
        await desk.complete(await desk.launch(running), [1, 2, 3])
        assert (await desk.report("reef"))["state"] == "completed"
        assert (await desk.steer("extend", add={"food": [3]}))["changed"] is False


async def test_a_cancelled_experiment_is_extended_once_that_has_ended(tmp_path: Path) -> None:
    """Until then it is refused; then a new round has the new jobs only."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=2))
        (opened,) = await desk.launch(running, 1)
        await desk.steer("cancel")
        with pytest.raises(errors.RequestRefused, match="is being cancelled"):
            await desk.steer("extend", replicates=2)
        await desk.hear("failed", opened, error_kind="stopped")
        assert (await desk.report("reef"))["state"] == "cancelled"
        reply = await desk.steer("extend", replicates=2)
        assert (reply["state"], reply["round"]) == ("running", 2)
        assert len(await desk.launch(live(desk))) == 2


async def test_each_version_of_a_plan_is_a_duplicate(tmp_path: Path) -> None:
    """Also the first one. Another plan under this id stays a conflict."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=2))
        await desk.steer("extend", plan=plan(points=3))
        for known in (2, 3):
            assert (await desk.submit(plan(points=known)))["decision"] == "duplicate"
        assert (await desk.submit(plan(points=4)))["decision"] == "rejected"


async def test_limits_and_labels_of_a_new_version_apply(tmp_path: Path) -> None:
    """What `set` put in place of a limit stays; jobs that are there keep their labels."""
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=1, labels={"gen": "1"}, limits={"max_failed": 0, "max_attempts": 1}))
        await desk.steer("set", priority=0)
        wanted = plan(points=2, labels={"gen": "2"}, limits={"max_failed": 1, "max_attempts": 1, "max_concurrent": 1})
        await desk.steer("extend", plan=wanted)
        assert (running.limits.max_concurrent, running.limits.max_failed.allowed(2)) == (1, 1)
        await desk.launch(running)
        assert [dict(start.labels) for call in desk.orchestrator.calls for start in call] == [
            {"gen": "1"},
            {"gen": "2"},
        ]


async def test_a_request_that_is_too_long_to_be_published_is_refused(tmp_path: Path) -> None:
    """The published change has all of it, so that a restore can apply it again."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=2))
        desk.broker.max_document_bytes = 4000
        with pytest.raises(errors.RequestRefused, match="the NATS server takes 4,000; send less of it"):
            await desk.steer("extend", plan=json.dumps(plan(points=3)) + " " * 2000)
        assert difference(await desk.steer("extend", plan=plan(points=3))) == (1, 0, 2)


async def test_an_extension_that_another_one_made_impossible_is_refused_in_its_last_word(tmp_path: Path) -> None:
    """Both were accepted while the experiment still expanded; they are carried out in their order."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(points=5000))
        running = live(desk)
        await desk.expander.expand(running)
        await desk.steer("extend", replicates=3, request_id="r-1")
        await desk.steer("extend", replicates=2, request_id="r-2")
        while not running.expanded:
            await desk.expander.expand(running)
        await desk.services.executor.finish(running)
        await desk.services.executor.publisher.publish()
        first, second = desk.broker.of("change")[-2:]
        assert (first["changed"], first["counts"]) == (True, {"new": {"pending": 10_000}})
        assert (second["changed"], second["applied"]) == (False, True)
        assert "the plan has 3 replicates already" in second["reason"]


async def test_a_plan_that_takes_long_to_examine_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is out before; a plan that can't be accepted is refused in the change's last word."""
    monkeypatch.setattr(extend, "_EXAMINATION_SECONDS", 0.0)
    async with Desk.open(tmp_path) as desk:
        running = await desk.begin(plan(points=2))
        assert (await desk.steer("extend", plan=plan(points=3), dry_run=True))["added"] is None
        reply = await desk.steer("extend", plan=plan(points=3))
        assert (reply["changed"], reply["added"], reply["applied"]) == (True, None, False)
        refused = await desk.steer("extend", plan=plan(points=3, group="other"))
        assert (refused["changed"], refused["applied"]) == (True, False)
        async with background(desk.services.executor.run()):
            await wait.until(lambda: len(desk.broker.of("change")) == 4)
        last = {document["request_id"]: document for document in desk.broker.of("change")}
        assert difference(last[reply["request_id"]]) == (1, 0, 2)
        assert last[refused["request_id"]]["changed"] is False
        assert "group: this differs from" in last[refused["request_id"]]["reason"]
        assert running.changes == {}


async def test_counting_the_jobs_of_a_large_plan_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that may be too large is compared with the points that are there; the experiment can be cancelled then."""
    compared, counted = asyncio.Event(), Matching.compared

    async def takes_long(self: Matching, *args: Any, **kwargs: Any) -> Any:
        await compared.wait()
        return await counted(self, *args, **kwargs)

    monkeypatch.setattr(Matching, "compared", takes_long)
    monkeypatch.setattr(extend, "_EXAMINATION_SECONDS", 0.0)
    async with Desk.open(tmp_path, max_jobs=10) as desk:
        running = await desk.begin(plan(points=8))
        other = plan(points=8)
        other["parameter_space"]["food"] = list(range(4, 12))
        async with background(desk.services.executor.run()):
            async with asyncio.timeout(10):
                assert (await desk.steer("extend", plan=other))["counts"] is None
                assert (await desk.steer("exclude", where="food == 1"))["counts"] is None
                assert (await desk.steer("pause"))["state"] == "paused"
                assert (await desk.steer("cancel"))["changed"] is True
                compared.set()
                await wait.until(lambda: not running.changes)
        await desk.services.executor.publisher.publish()
        words = {document["verb"]: document["reason"] for document in desk.broker.of("change") if document["applied"]}
        assert words["extend"].startswith("the experiment would have 12 jobs")
        assert running.record.state is ExperimentState.CANCELLED


async def test_jobs_that_are_there_run_as_their_own_version_of_the_plan_has_them(tmp_path: Path) -> None:
    """Also when the new version doesn't vary their parameters any more; a restart changes nothing about that."""
    both = plan()
    both["parameter_space"] = {"food": [0, 1], "heat": [2.5]}
    async with Desk.open(tmp_path) as desk:
        await desk.begin(both)
        await desk.steer("extend", plan=plan(points=1))
    async with Desk.open(tmp_path) as desk:
        await desk.launch(live(desk))
        configs = [start.config.decode() for call in desk.orchestrator.calls for start in call]
        values = [[line for line in config.splitlines() if line[:4] in ("food", "heat")] for config in configs]
        assert values == [["food: 0", "heat: 2.5"], ["food: 1", "heat: 2.5"], ["food: 0", "heat: 1.5"]]
