"""Scenarios about pauses, cancellations and rounds that settle; `wiring.py` has the others."""

from pathlib import Path
from unittest.mock import patch

from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.service import expand
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan

# A service that isn't woken checks again seconds later; within this time it has to be woken.
_SOON = 2.0


async def a_paused_experiment_has_a_reason(directory: Path) -> None:
    """The status names who pauses it."""
    async with Desk.open(directory) as desk:
        await desk.begin(plan(hold=True))
        assert "holds it back" in (await desk.report("reef"))["reason"]


async def a_cancellation_is_a_reason(directory: Path) -> None:
    """The status has the number of runs that it waits for."""
    async with Desk.open(directory) as desk:
        await desk.launch(await desk.begin(plan(points=1)))
        await desk.steer("cancel", drain=True)
        assert "1 run may end" in (await desk.report("reef"))["reason"]


async def an_experiment_that_is_kept_open_has_a_reason(directory: Path) -> None:
    """The status says so once all its jobs have ended."""
    async with Desk.open(directory) as desk:
        live = await desk.begin(plan(points=1, keep_open=True))
        await desk.complete(await desk.launch(live), [1])
        assert "stays open" in (await desk.report("reef"))["reason"]


async def a_round_settles_when_its_grace_is_over(directory: Path) -> None:
    """Nothing else has to happen. The stragglers are cancelled, and that change is published at once."""
    settle = {"quorum": 1, "grace_seconds": 5, "stragglers": "cancel"}
    async with Desk.open(directory, clock := Clock()) as desk, background(desk.services.executor.run()):
        live = await desk.begin(plan(points=2, settle=settle))
        first, _ = await desk.launch(live)
        await desk.complete([first], [1])
        await desk.report("reef")
        await desk.services.settling.look()
        await desk.report("reef")
        clock.seconds += 5
        async with background(desk.services.settling.run()):
            await wait.until(lambda: desk.reporter.has_news(live.key), timeout=_SOON)
        await desk.report("reef")
        assert [settled["reason"] for settled in desk.broker.of("settled")] == ["quorum"]
        # The change isn't closed yet: the straggler is open.
        await wait.until(lambda: desk.broker.of("change"), timeout=_SOON)
        assert [change["request_id"] for change in desk.broker.of("change")] == ["settled-reef-1"]


async def a_change_is_closed_when_the_last_run_is_out(directory: Path) -> None:
    """The end of the run is enough."""
    async with Desk.open(directory) as desk, background(desk.services.executor.run()):
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        assert (await desk.steer("cancel"))["applied"] is False
        await desk.hear("failed", name, error_kind="stopped")
        await wait.until(lambda: desk.broker.of("change")[-1]["applied"], timeout=_SOON)


async def jobs_are_judged_when_they_are_expanded(directory: Path) -> None:
    """A condition reaches the jobs that follow, without another request."""
    with patch.object(expand, "_RUNS_PER_CHUNK", 1):
        async with Desk.open(directory) as desk, background(desk.services.executor.run()):
            await desk.submit(plan(points=3))
            live = desk.ledger.live("reef")
            assert live is not None
            await desk.expander.expand(live)
            await desk.steer("cancel", where="food < 2")
            assert live.tally.counts[Bucket.CANCELLED] == 1
            await desk.expander.expand(live)
            await wait.until(lambda: live.tally.counts[Bucket.CANCELLED] == 2, timeout=_SOON)


ALL = (
    a_paused_experiment_has_a_reason,
    a_cancellation_is_a_reason,
    an_experiment_that_is_kept_open_has_a_reason,
    a_round_settles_when_its_grace_is_over,
    a_change_is_closed_when_the_last_run_is_out,
    jobs_are_judged_when_they_are_expanded,
)
