"""An experiment that was accepted under an earlier version of the plan language: continued as it was, or left out.

The manifest of these tests was made by a worker with version 1, which died while it expanded experiments.
"""

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog.testing
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.adapters.manifest import Manifest, migrate
from ems_worker.core.language import version
from ems_worker.service.intake import check, loading
from ems_worker.service.recovery import recover
from tests.support import deaths
from tests.support.desk import Desk, plan

ROWS = Path(__file__).with_name("manifest_language_1.sql").read_text()
SCHEMA = 2
# Each would go on at point 4.
HALF = {"derived": "parameter_space.speed.expr", "bounded": "constraints", "stepped": "parameter_space.heat.range"}


@asynccontextmanager
async def worker(directory: Path, reads: int, patch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """A worker with this version of the language on the manifest, which is written first if it isn't there."""
    path = directory / "manifest.db"
    if not path.exists():
        async with Manifest.open(path, migrations=migrate.steps()[:SCHEMA]):
            pass
        with sqlite3.connect(path) as connection:
            connection.executescript(f"DELETE FROM remembered; {ROWS}")
        connection.close()
    patch.setattr(version, "VERSION", reads)
    async with Desk.open(directory) as desk:
        yield desk


@pytest.fixture
async def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    """A worker that reads version 2."""
    async with worker(tmp_path, 2, monkeypatch) as desk:
        yield desk


async def points(desk: Desk, experiment_id: str) -> dict[int, dict[str, Any]]:
    """The parameters of the recorded points, by their numbers."""
    return {row.point.point: dict(row.point.params) for row in await desk.rows(experiment_id)}


async def finish(desk: Desk, experiment_id: str) -> dict[str, Any]:
    """Expands the experiment and completes all its runs; returns its last status."""
    live = desk.ledger.live(experiment_id)
    assert live is not None
    while not live.expanded:
        await desk.expander.expand(live)
    await desk.launch(live)
    for row in await desk.rows(experiment_id):
        name = f"{experiment_id}-p{row.run.point:06d}-r000-a1"
        await desk.hear("completed", name, metrics={"population": row.run.point})
    return await desk.report(experiment_id)


async def test_a_half_expanded_plan_that_means_the_same_is_continued(later: Desk) -> None:
    """The points that follow are those of the version that accepted it."""
    status = await finish(later, "plain")
    assert (status["state"], status["counts"]["completed"]) == ("completed", 9)
    expected = [{"food": food, "heat": heat} for food in (1, 2, 3) for heat in (0.0, 0.5, 1.0)]
    assert await points(later, "plain") == dict(enumerate(expected))


async def test_an_experiment_whose_points_are_all_recorded_is_continued(later: Desk) -> None:
    """What its expressions meant is recorded, and its runs get the configurations that they would have got."""
    status = await finish(later, "whole")
    assert (status["state"], status["counts"]["completed"]) == ("completed", 3)
    assert await points(later, "whole") == {point: {"food": point + 1, "speed": 2 * point + 2} for point in range(3)}
    request = json.dumps({"simulation_id": "whole-p000000-r000-a1"}).encode()
    config = json.loads(await later.services.queries.handlers()["config"](request))
    assert config["config_sha"] == config["computed_sha"]


async def test_a_half_expanded_plan_that_may_mean_something_else_is_left_out_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log, `/readyz` and the status say which experiment, which versions and which part of its plan."""
    with structlog.testing.capture_logs() as logs:
        async with worker(tmp_path, 2, monkeypatch) as desk:
            assert {live.experiment_id for live in desk.ledger.experiments()} == {"plain", "whole"}
            reasons = {line["experiment_id"]: line["reason"] for line in logs if line["event"] == "experiment.left_out"}
            assert reasons.keys() == HALF.keys()
            problem = recover.problem(desk.ledger)
            assert problem is not None
            queries = desk.services.queries.handlers()
            listed = json.loads(await queries["list"](b"{}"))["experiments"]
            for name, path in HALF.items():
                for text in ("version 1 of the plan language", f"version 2 may read '{path}'", "4 of its"):
                    assert text in reasons[name]
                assert name in problem
                status = json.loads(await queries["get"](json.dumps({"experiment_id": name}).encode()))
                assert (status["state"], status["counts"]["completed"]) == ("running", 0)
                assert f"'{path}' in another way" in status["reason"]
                assert status["reason"] in {one["reason"] for one in listed if one["experiment_id"] == name}
                assert len(await points(desk, name)) == 4
                with pytest.raises(errors.RequestRefused, match="in another way"):
                    await desk.steer("pause", name)


async def test_an_experiment_that_is_left_out_is_finished_by_a_worker_of_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The later worker changed nothing of it. Once all its points are recorded, the later worker can continue."""
    async with worker(tmp_path, 2, monkeypatch) as desk:
        before = {name: await desk.rows(name) for name in HALF}
    async with worker(tmp_path, 1, monkeypatch) as desk:
        assert {name: await desk.rows(name) for name in HALF} == before
        live = desk.ledger.live("derived")
        assert live is not None
        while not live.expanded:
            await desk.expander.expand(live)
    async with worker(tmp_path, 2, monkeypatch) as desk:
        assert "derived" not in desk.ledger.unreadable
        assert (await finish(desk, "derived"))["counts"]["completed"] == 6
        assert await points(desk, "derived") == {point: {"food": point + 1, "speed": point + 2} for point in range(6)}


async def test_points_that_differ_from_those_that_are_recorded_are_noticed(
    later: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the versions say about themselves is not trusted where it can be checked."""
    monkeypatch.setattr(version, "CHANGES", {2: lambda plan: iter(())})
    record = await later.manifest.experiment("plain")
    assert record is not None
    other = replace(record.spec, plan=record.spec.plan.replace(b"[1, 2, 3]", b"[1, 4, 3]"))
    with pytest.raises(errors.PlanNotReadAsAccepted, match="point 3 has other parameters now"):
        await recover.read(replace(record, spec=other), later.manifest, loading.load(other, yaml_reader), yaml_reader)


async def test_a_plan_that_a_later_version_rejects_is_left_out(later: Desk) -> None:
    """The reason has what is wrong with it now, and the version that accepted it."""
    record = await later.manifest.experiment("whole")
    assert record is not None
    spec = replace(record.spec, plan=record.spec.plan.replace(b"food * 2", b"food ? 2"))
    with pytest.raises(errors.PlanNotReadAsAccepted, match=r"\[bad_expression\] \(accepted under version 1"):
        check.stored(spec, yaml_reader)


async def test_a_plan_that_may_mean_something_else_is_not_extended(later: Desk) -> None:
    """Its points would be new ones. One that means the same is extended, and is in the present version from then on."""
    with pytest.raises(errors.RequestRefused, match=r"'parameter_space.speed.expr'.*an experiment of its own"):
        await later.steer("extend", "whole", replicates=2)
    await finish(later, "plain")
    reply = await later.steer("extend", "plain", replicates=2)
    assert (reply["added"], reply["unchanged"], reply["counts"]) == (0, 9, {"new": {"pending": 9}})
    record = await later.manifest.experiment("plain")
    assert record is not None
    assert record.spec.language == 2


async def test_an_extension_that_is_half_done_is_not_continued_by_other_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its plan is the experiment's by then, and some of its points may be recorded. A worker of its version goes on."""
    monkeypatch.setattr(version, "VERSION", 1)
    space: dict[str, Any] = {"heat": {"expr": "food * 2"}, "food": [1]}
    wanted = plan(parameter_space={**space, "food": [1, 2, 3]})
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(parameter_space=space))
        with deaths.at("extend.begun"):
            await desk.steer("extend", plan=wanted, request_id="longer")
    monkeypatch.setattr(version, "VERSION", 2)
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.experiments() == []
        assert (
            "'parameter_space.heat.expr' in another way; its extension is half done" in desk.ledger.unreadable["reef"]
        )
    monkeypatch.setattr(version, "VERSION", 1)
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.services.executor.finish(live)
        assert await points(desk, "reef") == {point: {"food": point + 1, "heat": 2 * point + 2} for point in range(3)}


@pytest.mark.parametrize(("recorded", "carried_out"), [(1, 2), (2, 1), (1, 1)])
async def test_a_condition_of_another_version_is_refused_by_name(
    recorded: int, carried_out: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may choose other jobs now. What is left of the request has to be requested again."""
    monkeypatch.setattr(version, "VERSION", 1)
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(parameter_space={"food": [1, 2, 3]}))
        monkeypatch.setattr(version, "VERSION", recorded)
        with deaths.at("steering.recorded"):
            await desk.steer("exclude", where="food + 0.1 > 2", reason="too much", request_id="some")
    monkeypatch.setattr(version, "VERSION", carried_out)
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.services.executor.finish(live)
        queries = desk.services.queries.handlers()
        [change] = json.loads(await queries["get"](b'{"experiment_id": "reef"}'))["changes"]
        same = recorded == carried_out
        assert (change["applied"], change["refused"], change["language"]) == (True, not same, recorded)
        assert ("'food + 0.1 > 2' was requested under version" in change["reason"]) is not same
        assert sum(row.run.excluded is not None for row in await desk.rows("reef")) == (2 if same else 0)


async def test_a_published_condition_of_an_earlier_version_is_not_applied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore. Documents of before have no version, which means the first."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(parameter_space={"food": [1, 2, 3]}))
        document = await desk.steer("exclude", where="food > 2", dry_run=True)
        published = {**document, "request": {"where": "food > 2", "request_id": "r-1", "experiment_id": "reef"}}
        assert published.pop("language") == version.VERSION
        with pytest.raises(errors.RequestRefused, match="under version 1 of the plan language"):
            desk.services.control.drafted_again(live, published)
        again, _ = desk.services.control.drafted_again(live, {**published, "language": version.VERSION})
        assert again.language == version.VERSION
