"""Statuses say why an experiment waits and how far it is; one that says the same as the last isn't published."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service import statuses
from tests.support import schema_checks, wait
from tests.support.desk import Broker, Clock, Desk, background, plan

OPEN_ENDED: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": "100%"}}


def terminal(broker: Broker) -> Sequence[str]:
    """The states of published statuses of experiments that have ended."""
    states = [status["state"] for status in broker.statuses]
    return [state for state in states if state not in ("accepted", "running", "paused")]


async def run_all(desk: Desk, points: int = 2, **more: Any) -> None:
    """Runs an experiment to its end; job N has the value N."""
    live = await desk.begin(plan(points=points, **more))
    await desk.complete(await desk.launch(live), range(points))
    await desk.reporter.flush()


async def steered(desk: Desk, verb: str, **request: Any) -> None:
    """Carries out a change and publishes what follows."""
    await desk.steer(verb, **request)
    for live in desk.ledger.experiments():
        await desk.services.executor.finish(live)
    await desk.reporter.flush()


async def test_a_terminal_status_is_published_once(tmp_path: Path) -> None:
    """Whatever asks for a report of an experiment that has ended, its status isn't repeated while it is the same."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        async with background(desk.reporter.run()), background(desk.services.settling.run()):
            live = await desk.begin(plan(points=2))
            await desk.complete(await desk.launch(live), [1, 2])
            await wait.until(lambda: not desk.ledger.experiments())
        for _ in range(3):
            clock.seconds += 60
            async with desk.ledger.pinned("reef") as again:
                assert again is not None
                desk.reporter.notify(again.key)
                await desk.reporter.flush()
            await desk.reporter.flush()
            # The same with a change that changes nothing.
            assert (await desk.steer("pause"))["changed"] is False
            await desk.reporter.flush()
        assert terminal(desk.broker) == ["completed"]
        assert desk.ledger.experiments() == []


async def test_a_restart_repeats_no_terminal_status(tmp_path: Path) -> None:
    """Nor does a late event that changes nothing, by which the experiment is loaded again."""
    broker = Broker()
    async with Desk.open(tmp_path, broker=broker) as desk:
        await run_all(desk)
    async with Desk.open(tmp_path, clock := Clock(), broker) as desk:
        clock.seconds += 60
        await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 0})
        async with desk.ledger.pinned("reef") as live:
            assert live is not None
            desk.reporter.notify(live.key)
            await desk.reporter.flush()
        assert terminal(broker) == ["completed"]


async def test_an_exclusion_in_an_ended_experiment_is_worth_a_status(tmp_path: Path) -> None:
    """So is each that takes it back; a repetition isn't."""
    async with Desk.open(tmp_path) as desk:
        await run_all(desk, 3)
        await steered(desk, "exclude", where="food == 2", reason="bad host")
        status = desk.broker.statuses[-1]
        assert (status["excluded"], status["best"]["point"], status["metrics"]["population"]["n"]) == (1, 1, 2)
        assert status["counts"]["completed"] == 3
        await steered(desk, "exclude", where="food == 2", reason="bad host")
        await steered(desk, "include", where="food == 2")
        status = desk.broker.statuses[-1]
        assert (status["excluded"], status["best"]["point"], status["metrics"]["population"]["n"]) == (0, 2, 3)
        assert terminal(desk.broker) == ["completed"] * 3
        schema_checks.check(status)


async def test_a_late_result_in_an_ended_experiment_is_worth_a_status(tmp_path: Path) -> None:
    """A lost run turns out to have completed."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=2, **OPEN_ENDED))
        first, second = await desk.launch(live)
        await desk.complete([first], [1])
        await desk.ledger.hear([((live.key, 1, 0, 1), Signal(RunEvent.LOSE, ErrorKind.LOST))])
        await desk.reporter.flush()
        clock.seconds += 100
        await desk.complete([second], [5])
        await desk.reporter.flush()
        assert terminal(desk.broker) == ["completed", "completed"]
        assert desk.broker.statuses[-1]["metrics"]["population"]["n"] == 2


async def test_a_paused_experiment_says_by_whom(tmp_path: Path) -> None:
    """And what ends the pause. The remaining time is unknown."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=4))
        names = await desk.launch(live, 2)
        await desk.report("reef")
        clock.seconds += 1
        await desk.complete(names[:1], [1])
        assert (await desk.report("reef"))["eta_seconds"] == 3
        await desk.steer("pause")
        status = await desk.report("reef")
        assert (status["state"], status["pauses"], status["eta_seconds"]) == ("paused", ["person"], None)
        assert status["reason"] == "paused by a person"
        assert status["throughput"] == 1
        await desk.steer("resume")
        status = await desk.report("reef")
        assert (status["state"], status["pauses"], status["reason"]) == ("running", [], None)
        assert status["eta_seconds"] == 3


async def test_a_held_experiment_says_so(tmp_path: Path) -> None:
    """Its plan has `hold`; a pause beside it is named too."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(hold=True))
        status = await desk.report("reef")
        assert (status["state"], status["pauses"]) == ("paused", ["hold"])
        assert status["reason"] == "its plan holds it back until `resume`"
        await desk.steer("pause")
        status = await desk.report("reef")
        assert status["pauses"] == ["hold", "person"]
        assert status["reason"] == "paused by a person; its plan holds it back until `resume`"


@pytest.mark.parametrize(
    ("drain", "reasons"),
    [
        (False, ["being cancelled: 2 runs are being stopped", "being cancelled: 1 run is being stopped"]),
        (True, ["being cancelled: 2 runs may end", "being cancelled: 1 run may end"]),
    ],
)
async def test_an_experiment_that_is_being_cancelled_says_what_it_waits_for(
    tmp_path: Path, drain: bool, reasons: list[str]
) -> None:
    """Its terminal status has no such reason."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        names = await desk.launch(live, 2)
        await desk.steer("cancel", drain=drain)
        for name, reason in zip(names, reasons, strict=True):
            status = await desk.report("reef")
            assert (status["state"], status["reason"]) == ("running", reason)
            assert status["cancelling"] == ("drain" if drain else "stop")
            await desk.complete([name], [1])
        status = await desk.report("reef")
        assert (status["state"], status["cancelling"], status["reason"]) == ("cancelled", None, None)


async def test_the_reason_of_a_large_cancellation_changes_rarely(tmp_path: Path) -> None:
    """Each change of a reason is worth a status: the number of runs is rounded down to one digit."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=57))
        names = await desk.launch(live)
        await desk.steer("cancel", drain=True)
        reasons = []
        for name in names:
            reasons.append((await desk.report("reef"))["reason"])
            await desk.complete([name], [1])
        assert reasons[0] == "being cancelled: 50 or more runs may end"
        assert len(set(reasons)) == 5 + 10


async def test_progress_includes_what_open_runs_report(tmp_path: Path) -> None:
    """Each event with `step` and `total` is recorded; it waits for the next status like any other news."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        first, second = await desk.launch(live)
        await desk.hear("started", first)
        await desk.hear("metrics", first, step=25, total=100)
        assert (await desk.report("reef"))["progress"] == 0.125
        published = len(desk.broker.statuses)
        for step in range(26, 76):
            await desk.hear("metrics", first, step=step, total=100)
        assert len(desk.broker.statuses) == published
        assert (await desk.report("reef"))["progress"] == 0.375
        assert len(desk.broker.statuses) == published + 1
    async with Desk.open(tmp_path) as desk:
        [live] = desk.ledger.experiments()
        desk.reporter.notify(live.key)
        assert (await desk.report("reef"))["progress"] == 0.375
        await desk.complete([first], [1])
        assert (await desk.report("reef"))["progress"] == 0.5
        await desk.hear("metrics", second, step=1, total=0)
        assert (await desk.report("reef"))["progress"] == 0.5


async def test_throughput_is_never_negative(tmp_path: Path) -> None:
    """A retry takes ends back, and what was measured before it doesn't count any more."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=50, **OPEN_ENDED))
        names = await desk.launch(live)
        await desk.report("reef")
        for name in names[:49]:
            clock.seconds += 0.02
            await desk.hear("failed", name, error_kind="simulation")
            await desk.report("reef")
        clock.seconds += 0.02
        assert (await desk.steer("retry"))["counts"] == {"failed": {"pending": 49}}
        status = await desk.report("reef")
        assert (status["throughput"], status["eta_seconds"]) == (0, None)
        clock.seconds += 1
        await desk.complete(names[49:], [1])
        status = await desk.report("reef")
        assert (status["throughput"], status["eta_seconds"]) == (1, 49)


async def test_the_best_point_is_chosen_anew_when_a_retry_takes_it_back(tmp_path: Path) -> None:
    """Until the retried job has ended, its point isn't ranked."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2, **OPEN_ENDED))
        names = await desk.launch(live)
        await desk.complete(names[:3], [1, 1, 9])
        await desk.hear("failed", names[3], error_kind="simulation")
        assert (await desk.report("reef"))["best"]["point"] == 1
        await desk.steer("retry")
        assert (await desk.report("reef"))["best"]["point"] == 0
        again = desk.ledger.live("reef")
        assert again is not None
        await desk.complete(await desk.launch(again), [-20])
        assert (await desk.report("reef"))["best"]["point"] == 0


def test_statuses_that_differ_in_the_last_digits_of_a_mean_say_the_same() -> None:
    """After a restart, values are added up in another order."""
    before = {"revision": 7, "metrics": {"population": {"n": 16, "mean": 427.75000000000006}}}
    after = {"revision": 8, "metrics": {"population": {"n": 16, "mean": 427.75}}}
    assert statuses.same(before, after, ended=True)
    assert not statuses.same(before, {**after, "metrics": {"population": {"n": 16, "mean": 427.76}}}, ended=True)
