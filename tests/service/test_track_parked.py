"""Events of unknown runs are parked in the manifest until their runs are known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog.testing

from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import ParkedEvent
from tests.support.desk import Desk, plan


async def test_events_of_unknown_runs_are_parked_until_their_run_is_known(tmp_path: Path) -> None:
    """They are acknowledged once they are in the manifest, and survive a restart."""
    async with Desk.open(tmp_path) as desk:
        await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 8})
        await desk.hear("started", "foreign")
        assert len(desk.broker.acked) == 2
        assert desk.count("ems_events_total", verdict="parked") == 2
        await desk.tracker.retry_parked(0)
        assert len(await desk.manifest.parked()) == 2
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert [event.simulation_id for event in await desk.manifest.parked()] == ["foreign"]
        assert desk.tracker.parked


async def test_simulation_ids_in_the_wrong_case_are_logged_once_for_each_experiment(tmp_path: Path) -> None:
    """The warning has an example and the correct id. Such events are parked, and dropped in the end."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        names = await desk.launch(live)
        with structlog.testing.capture_logs() as lines:
            for name in names:
                await desk.hear("completed", name.upper(), metrics={"population": 8})
            await desk.hear("started", "FOREIGN-P000000-R000-A1")
        warnings = [line for line in lines if line["event"] == "event.other_case"]
        assert warnings == [
            {"event": "event.other_case", "log_level": "warning", "simulation_id": names[0].upper(), "meant": names[0]}
        ]
        assert desk.count("ems_events_total", verdict="parked") == 3


@pytest.mark.parametrize("name", ["reef-p{}-r000-a1", "reef-p000000-r{}-a1", "reef-p000000-r000-a{}"])
async def test_a_simulation_id_with_a_huge_number_is_only_unknown(tmp_path: Path, name: str) -> None:
    """A publisher of events may choose any number."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())
        await desk.hear("completed", name.format("9" * 30))
        assert [event.simulation_id for event in await desk.manifest.parked()] == [name.format("9" * 30)]


async def test_parked_events_are_limited_in_number_and_in_time(tmp_path: Path) -> None:
    """The oldest are dropped first."""
    async with Desk.open(tmp_path, parked_events=2) as desk:
        for name in "abc":
            await desk.hear("started", name)
        assert [event.simulation_id for event in await desk.manifest.parked()] == ["b", "c"]
        desk.clock.seconds += 100
        await desk.tracker.retry_parked(desk.clock.now_ms() - 50_000)
        assert await desk.manifest.parked() == []
        assert not desk.tracker.parked


async def test_parked_events_are_applied_again_only_if_their_experiment_has_new_runs(tmp_path: Path) -> None:
    """After the start, when all are applied, the events of other systems are not even read."""
    async with Desk.open(tmp_path) as desk:
        for number in range(20):
            await desk.hear("started", f"foreign-p{number:06d}-r000-a1")
        await desk.hear("started", "of another system")
        await desk.begin(plan("other"))
        read: list[str] = []
        parked, parked_of = desk.manifest.parked, desk.manifest.parked_of

        async def noted_parked() -> Sequence[ParkedEvent]:
            events = await parked()
            read.extend(event.simulation_id for event in events)
            return events

        async def noted_parked_of(experiment_ids: Sequence[str]) -> Sequence[ParkedEvent]:
            events = await parked_of(experiment_ids)
            read.extend(event.simulation_id for event in events)
            return events

        with (
            patch.object(desk.manifest, "parked", noted_parked),
            patch.object(desk.manifest, "parked_of", noted_parked_of),
        ):
            await desk.tracker.retry_parked(0)
            assert len(read) == 21
            new_point, next_attempt = "reef-p000001-r000-a1", "reef-p000000-r000-a2"
            await desk.hear("completed", new_point, metrics={"population": 8})
            await desk.hear("started", next_attempt)
            read.clear()
            await desk.tracker.retry_parked(0)
            assert read == []
            live = await desk.begin(plan(points=2, limits={"max_attempts": 2}))
            await desk.tracker.retry_parked(0)
            assert read == [new_point, next_attempt]
            assert (await desk.row(new_point)).run.state is RunState.COMPLETED
            read.clear()
            await desk.tracker.retry_parked(0)
            assert read == []
            await desk.launch(live)
            await desk.hear("failed", "reef-p000000-r000-a1", error_kind="infrastructure")
            await desk.tracker.retry_parked(0)
            assert read == [next_attempt]
            assert (await desk.row(next_attempt)).run.state is RunState.RUNNING
            assert desk.tracker.parked


async def test_an_event_that_is_parked_while_its_run_is_created_is_applied_next_time(tmp_path: Path) -> None:
    """The run did not exist when it was looked up, and no further run may follow."""
    async with Desk.open(tmp_path) as desk:
        park = desk.manifest.park

        async def meanwhile(*given: Any) -> int:
            await desk.begin(plan(points=1))
            await desk.tracker.retry_parked(0)
            return await park(*given)

        with patch.object(desk.manifest, "park", meanwhile):
            await desk.hear("completed", "reef-p000000-r000-a1")
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert not desk.tracker.parked


async def test_an_event_that_is_parked_while_others_are_applied_is_kept(tmp_path: Path) -> None:
    """The tracker still knows that parked events wait."""
    async with Desk.open(tmp_path) as desk:
        unpark = desk.manifest.unpark

        async def meanwhile(events: Any) -> None:
            await desk.hear("started", "reef-p000000-r000-a1")
            await unpark(events)

        with patch.object(desk.manifest, "unpark", meanwhile):
            await desk.tracker.retry_parked(0)
        assert desk.tracker.parked


async def test_a_parked_event_that_contradicts_another_is_dropped(tmp_path: Path) -> None:
    """The first end is kept, and no event stays parked."""
    async with Desk.open(tmp_path) as desk:
        await desk.hear("completed", "reef-p000000-r000-a1")
        await desk.hear("failed", "reef-p000000-r000-a1")
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert await desk.manifest.parked() == []
        assert desk.count("ems_events_total", verdict="contradiction") == 1


async def test_an_event_that_is_parked_during_the_last_step_of_a_retry_is_not_forgotten(tmp_path: Path) -> None:
    """The tracker asks last whether events are parked, and another one may be parked before it has the answer."""
    async with Desk.open(tmp_path) as desk:
        any_parked = desk.manifest.any_parked

        async def overtaken() -> bool:
            answer = await any_parked()
            await desk.hear("started", "reef-p000000-r000-a1")
            return answer

        with patch.object(desk.manifest, "any_parked", overtaken):
            await desk.tracker.retry_parked(0)
        assert desk.tracker.parked
