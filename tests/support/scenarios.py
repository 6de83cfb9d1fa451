"""Scenarios of experiments from their plans to their ends, which need every callback that `services.build` connects."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ems_worker.core.wire import Capacity
from ems_worker.service import expand, reconcile, track
from ems_worker.service.reach import Claimed
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan

# A service that isn't woken checks again seconds later; within this time it has to be woken.
_SOON = 2.0


@asynccontextmanager
async def _working(directory: Path, **settings: Any) -> AsyncIterator[Desk]:
    """A worker whose expander, dispatcher and reporter run in the background."""
    async with (
        Desk.open(directory, **settings) as desk,
        background(desk.expander.run()),
        background(desk.dispatcher.run()),
        background(desk.reporter.run()),
    ):
        await wait.until(lambda: desk.dispatcher.idle)
        yield desk


async def _sent(desk: Desk, count: int) -> None:
    await wait.until(lambda: len(desk.orchestrator.sent) >= count, timeout=_SOON)


async def _state(desk: Desk, state: str) -> None:
    await wait.until(lambda: desk.broker.statuses and desk.broker.statuses[-1]["state"] == state, timeout=_SOON)


async def an_accepted_plan_runs_to_its_end(directory: Path) -> None:
    """It is expanded, dispatched within the run window and reported, and its manifest file is written."""
    async with _working(directory, run_window=1) as desk:
        await desk.submit(plan(points=3))
        for number in range(3):
            await _sent(desk, number + 1)
            await wait.until(lambda: desk.dispatcher.idle)
            await desk.hear("completed", desk.orchestrator.sent[-1], metrics={"population": 1})
        await _state(desk, "completed")
        assert desk.files == ["reef"]


async def an_accepted_plan_has_a_status_before_it_is_expanded(directory: Path) -> None:
    """Its acceptance alone causes the first status."""
    async with Desk.open(directory) as desk, background(desk.reporter.run()):
        await desk.submit(plan())
        await _state(desk, "accepted")


async def later_points_are_dispatched_when_they_are_expanded(directory: Path) -> None:
    """This needs no end of a run, although the experiment is running already."""
    with patch.object(expand, "_RUNS_PER_CHUNK", 1):
        async with Desk.open(directory) as desk, background(desk.dispatcher.run()):
            await desk.submit(plan(points=2))
            live = desk.ledger.live("reef")
            assert live is not None
            for count in (1, 2):
                await desk.expander.expand(live)
                await _sent(desk, count)
                await wait.until(lambda: desk.dispatcher.idle)


async def an_open_breaker_is_a_reason(directory: Path) -> None:
    """Many infrastructure failures open it, and the status reports that no run is started."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan(points=40, limits={"max_attempts": 1, "max_failed": "100%"}))
        live = desk.ledger.experiments()[0]
        for name in await desk.launch(live, 20):
            await desk.hear("failed", name, error_kind="infrastructure")
        assert "paused" in (await desk.report("reef"))["reason"]


async def a_refusal_of_the_broker_is_a_reason(directory: Path) -> None:
    """The status names what NATS refuses."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan())
        desk.broker.refused = "to store results"
        assert (await desk.report("reef"))["reason"] == "NATS refuses to store results"


async def an_orchestrator_that_is_away_is_a_reason(directory: Path) -> None:
    """The status reports that it can't be reached."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan())
        desk.orchestrator.is_ready = False
        assert "can't be reached" in (await desk.report("reef"))["reason"]


async def another_model_version_is_a_reason(directory: Path) -> None:
    """The status names the version for which the experiment waits."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan(model_version="reef-2"))
        assert "reef-2" in (await desk.report("reef"))["reason"]


async def start_commands_without_an_answer_are_a_reason(directory: Path) -> None:
    """The status has the number of the experiment's commands that wait for an answer."""
    async with Desk.open(directory, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2))
        desk.orchestrator.code = "INTERNAL"
        claimed = await desk.claim(live, 2)
        async with background(desk.submitter.submit([Claimed.of(live, run, point) for run, point in claimed])):
            await wait.until(lambda: desk.orchestrator.calls)
            clock.seconds += 60
            await wait.until(lambda: desk.services.reasons.of(live), timeout=_SOON)
            assert "2 starts without an answer" in (await desk.report("reef"))["reason"]


async def runs_are_started_as_soon_as_commands_get_through_again(directory: Path) -> None:
    """This doesn't require that the refused run has been started."""
    async with _working(directory) as desk:
        desk.orchestrator.code = "UNAUTHENTICATED"
        await desk.submit(plan("refused", points=1))
        await wait.until(lambda: desk.submitter.reach.stuck)
        await desk.submit(plan("next", points=1))
        await wait.until(lambda: desk.dispatcher.idle)
        assert "next-p000000-r000-a1" not in desk.orchestrator.sent
        desk.orchestrator.code = "RESOURCE_EXHAUSTED"
        await wait.until(lambda: "next-p000000-r000-a1" in desk.orchestrator.sent, timeout=_SOON)


async def a_backlog_of_events_stops_dispatch(directory: Path) -> None:
    """Dispatch continues when the backlog is gone."""
    async with Desk.open(directory) as desk, background(desk.tracker.run()):
        with patch.object(track, "_BACKLOG", 2):
            events = [desk.message("sim.run_started", {"simulation_id": name}) for name in "ab"]
            desk.broker.waiting.put_nowait(events)
            await wait.until(lambda: desk.dispatcher.behind, timeout=_SOON)
            desk.broker.waiting.put_nowait(())
            await wait.until(lambda: not desk.dispatcher.behind, timeout=_SOON)


async def runs_have_a_default_time_limit_if_the_orchestrator_has_no_status_query(directory: Path) -> None:
    """A run whose plan has no limit is stopped after an hour if the orchestrator doesn't answer status queries."""
    async with Desk.open(directory, clock := Clock()) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("started", name)
        clock.seconds += 3601
        await desk.limits.check()
        assert desk.orchestrator.stops == []
        desk.orchestrator.known = None
        for _ in range(2):
            clock.seconds += reconcile.INTERVAL_SECONDS
            await desk.services.reconciler.query()
        await desk.limits.check()
        assert desk.orchestrator.stops == [name]


async def plans_over_the_orchestrators_message_limit_are_rejected(directory: Path) -> None:
    """Intake and `ems.api.validate` both reject them."""
    async with Desk.open(directory) as desk:
        desk.orchestrator.message_limit = 600
        large = plan(base_config={"food": 1, "text": "x" * 500})
        validate = desk.services.queries.handlers()["validate"]
        for decision in (await desk.submit(large), json.loads(await validate(json.dumps(large).encode()))):
            assert [problem["code"] for problem in decision["errors"]] == ["configuration_too_large"]


async def the_run_window_counts_in_an_estimate(directory: Path) -> None:
    """The window is the number of slots that the orchestrator has reported."""
    async with Desk.open(directory, clock := Clock(), run_window=None) as desk, background(desk.dispatcher.run()):
        desk.orchestrator.capacities.put_nowait(Capacity(3, 0, ""))
        await desk.begin(plan(points=1))
        await _sent(desk, 1)
        await desk.hear("started", desk.orchestrator.sent[0])
        clock.seconds += 10
        await desk.hear("completed", desk.orchestrator.sent[0], metrics={"population": 1})
        validate = desk.services.queries.handlers()["validate"]
        decision = json.loads(await validate(json.dumps(plan("next", points=6)).encode()))
        assert decision["estimate"]["slots"] == 3


async def an_ended_experiment_can_be_loaded_again(directory: Path) -> None:
    """It is loaded from the manifest."""
    async with Desk.open(directory) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        await desk.hear("completed", name, metrics={"population": 1})
        await desk.report("reef")
        assert desk.ledger.live("reef") is None
        async with desk.ledger.pinned("reef") as live:
            assert live is not None
            assert live.experiment_id == "reef"


ALL = (
    an_accepted_plan_runs_to_its_end,
    an_accepted_plan_has_a_status_before_it_is_expanded,
    later_points_are_dispatched_when_they_are_expanded,
    an_open_breaker_is_a_reason,
    a_refusal_of_the_broker_is_a_reason,
    an_orchestrator_that_is_away_is_a_reason,
    another_model_version_is_a_reason,
    start_commands_without_an_answer_are_a_reason,
    runs_are_started_as_soon_as_commands_get_through_again,
    a_backlog_of_events_stops_dispatch,
    runs_have_a_default_time_limit_if_the_orchestrator_has_no_status_query,
    plans_over_the_orchestrators_message_limit_are_rejected,
    the_run_window_counts_in_an_estimate,
    an_ended_experiment_can_be_loaded_again,
)
