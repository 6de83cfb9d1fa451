"""Accepted -> recorded: points and their first runs are added in chunks, resumable after each."""

from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.service import expand
from tests.support import wait
from tests.support.desk import Desk, background, plan


@pytest.fixture(autouse=True)
def small_chunks() -> object:
    with patch.object(expand, "_RUNS_PER_CHUNK", 4):
        yield


async def test_an_expanded_experiment_has_a_first_run_for_each_point_and_replicate(tmp_path: Path) -> None:
    """Points are in order, and a replicate has the same seed at every point."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3, replicates=2, seeds={"root": 5}, labels={"who": "me"}))
        rows = await desk.rows("reef")
        assert [(row.run.point, row.run.replicate, row.run.attempt) for row in rows] == [
            (point, replicate, 1) for point in range(3) for replicate in range(2)
        ]
        assert [row.run.seed for row in rows] == [live.plan.seeds.of(row.run.point, row.run.replicate) for row in rows]
        assert rows[0].run.seed == rows[2].run.seed != rows[1].run.seed
        assert [row.point.params["food"] for row in rows] == [0, 0, 1, 1, 2, 2]
        assert live.record.state is ExperimentState.RUNNING
        assert desk.count("ems_jobs_expanded_total") == 6


async def test_expansion_continues_after_a_crash_between_two_chunks(tmp_path: Path) -> None:
    """No point is recorded twice, and none is missing."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(points=10))
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        assert live.record.expanded_points == 4
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        assert (live.record.state, live.record.expanded_points) == (ExperimentState.RUNNING, 4)
        while not live.expanded:
            await desk.expander.expand(live)
        assert [row.run.point for row in await desk.rows("reef")] == list(range(10))


async def test_an_experiment_whose_jobs_are_all_recorded_begins_though_an_earlier_worker_did_not_get_to_it(
    tmp_path: Path,
) -> None:
    """Workers used to record its beginning after its jobs, so that a manifest may have one that hasn't begun."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(points=4))
        live = desk.ledger.live("reef")
        assert live is not None
        expand = desk.manifest.expand

        async def earlier(*values: Any, begun: object) -> None:
            assert begun is not None
            await expand(*values)

        with patch.object(desk.manifest, "expand", earlier):
            await desk.expander.expand(live)
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        assert (live.record.state, live.expanded) == (ExperimentState.ACCEPTED, True)
        async with background(desk.expander.run()):
            await wait.until(lambda: live.record.state is ExperimentState.RUNNING)
        assert len(await desk.rows("reef")) == 4


async def test_an_experiment_begins_in_the_commit_of_its_first_jobs(tmp_path: Path) -> None:
    """A crash before that leaves it accepted and without jobs."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan(points=4))
        live = desk.ledger.live("reef")
        assert live is not None
        with (
            patch.object(desk.manifest, "expand", side_effect=ConnectionAbortedError),
            pytest.raises(ConnectionAbortedError),
        ):
            await desk.expander.expand(live)
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.state, record.expanded_points) == (ExperimentState.ACCEPTED, 0)
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.state, record.expanded_points) == (ExperimentState.RUNNING, 4)


async def test_experiments_are_expanded_in_turn(tmp_path: Path) -> None:
    """A small experiment doesn't wait for the end of a large one."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan("large", points=400))
        await desk.submit(plan("small", points=8))
        small, record = desk.ledger.live("small"), desk.manifest.expand
        assert small is not None
        order: list[int] = []

        async def note(key: int, *rest: Any, begun: Any) -> None:
            order.append(key)
            await record(key, *rest, begun=begun)

        with patch.object(desk.manifest, "expand", note):
            async with background(desk.expander.run()):
                await wait.until(lambda: small.expanded)
        assert [key == small.key for key in order[:4]] == [False, True, False, True]


async def test_a_woken_expander_expands_new_experiments(tmp_path: Path) -> None:
    """The expander sleeps while there is nothing to expand."""
    async with Desk.open(tmp_path) as desk:
        async with background(desk.expander.run()):
            await desk.submit(plan("later", points=3))
            desk.expander.wake()
            live = desk.ledger.live("later")
            assert live is not None
            await wait.until(lambda: live.expanded)


async def test_a_chunk_has_at_least_one_point_with_all_its_replicates(tmp_path: Path) -> None:
    """This holds even if the replicates are more rows than a chunk should have."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=9))
        assert len(await desk.rows("reef")) == 18
        assert live.expanded


async def test_a_union_of_spaces_is_expanded_across_a_crash(tmp_path: Path) -> None:
    """The points of all spaces, equal ones once, with the values of the base configuration and of variables."""
    spaces = [
        {"parameter_space": {"food": [1, 2, 3]}},
        {"parameter_space": {"food": [2, 3, 4]}, "variables": {"warmth": [5]}},
        {"parameter_space": {"food": [3, 4, 6]}},
    ]
    async with Desk.open(tmp_path) as desk:
        decision = await desk.submit({**plan(), "parameter_space": spaces})
        assert (decision["decision"], decision["points"]) == ("accepted", 8)
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        assert live.record.expanded_points == 4
    async with Desk.open(tmp_path) as desk:
        live = desk.ledger.live("reef")
        assert live is not None
        while not live.expanded:
            await desk.expander.expand(live)
        assert [row.point.params for row in await desk.rows("reef")] == [
            *({"food": food} for food in (1, 2, 3)),
            *({"food": food, "warmth": 5} for food in (2, 3, 4)),
            *({"food": food} for food in (4, 6)),
        ]


async def test_a_variable_is_a_parameter_that_no_configuration_has(tmp_path: Path) -> None:
    """Points have it, conditions that choose jobs name it, and `extend` adds values of it."""
    async with Desk.open(tmp_path) as desk:
        derived = {"food": {"expr": "10 * supply"}}
        live = await desk.begin({**plan(), "variables": {"supply": [1, 2]}, "parameter_space": derived})
        assert live.record.spec.parameters == {"supply": "", "food": "food"}
        assert (await desk.steer("cancel", where="supply > 1"))["counts"] == {"pending": {"cancelled": 1}}
        assert (await desk.steer("extend", add={"supply": [3]}))["added"] == 1
        await desk.launch(live)
        configs = [start.config.decode() for call in desk.orchestrator.calls for start in call]
        assert [config.splitlines()[0] for config in configs] == ["food: 10", "food: 30"]
        assert not any("supply" in config for config in configs)
        assert [row.point.params for row in await desk.rows("reef")] == [
            {"supply": supply, "food": 10 * supply} for supply in (1, 2, 3)
        ]
