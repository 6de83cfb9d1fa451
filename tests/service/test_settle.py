"""A round settles once: with its last job, or when its quorum has ended and its stragglers had their grace."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.service.ledger.live import Live
from tests.support import deaths, schema_checks
from tests.support.desk import Broker, Clock, Desk, plan

# Three of four jobs, and five seconds for the last one.
QUORUM: dict[str, Any] = {"settle": {"quorum": 3, "grace_seconds": 5}}
CANCEL: dict[str, Any] = {"settle": {"quorum": 3, "grace_seconds": 5, "stragglers": "cancel"}}


async def pass_time(desk: Desk, clock: Clock, seconds: float) -> list[dict[str, Any]]:
    """Looks at experiments after some seconds and publishes their news; returns the documents of settled rounds."""
    clock.seconds += seconds
    await desk.services.settling.look()
    await desk.reporter.flush()
    return desk.broker.of("settled")


async def finish(desk: Desk) -> None:
    """Carries out all changes, and publishes all news."""
    for live in desk.ledger.experiments():
        desk.reporter.notify(live.key)
    await desk.reporter.flush()
    for live in desk.ledger.experiments():
        await desk.services.executor.finish(live)
    await desk.reporter.flush()
    await desk.services.executor.publisher.publish()


def states(desk: Desk) -> list[str]:
    """The states in all published statuses."""
    return [status["state"] for status in desk.broker.statuses]


async def to_quorum(desk: Desk, settle: dict[str, Any]) -> tuple[Live, str]:
    """An experiment whose quorum has ended; returns the id of the run that is left."""
    live = await desk.begin(plan(points=4, **settle))
    *names, last = await desk.launch(live)
    await desk.complete(names, [1, 2, 3])
    await desk.report("reef")
    return live, last


async def test_a_round_settles_with_its_last_job(tmp_path: Path) -> None:
    """Its document follows the results that it counts and precedes the terminal status. No plan has to ask for it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.complete(await desk.launch(live), [4, 8])
        assert (await desk.report("reef"))["settled"] is True
        kinds = [subject.split(".")[2] for subject, _, _ in desk.broker.published]
        assert kinds == ["decision", "result", "result", "point", "point", "settled"]
        [settled] = desk.broker.of("settled")
        schema_checks.check(settled)
        assert (settled["reason"], settled["round"], settled["ended_seq"]) == ("ended", 1, 2)
        assert (settled["counts"]["completed"], settled["total"], settled["stragglers"]) == (2, 2, 0)
        assert (settled["metrics"]["population"]["mean"], settled["best"]["point"]) == (6, 1)
        assert states(desk)[-1] == "completed"


async def test_a_round_settles_when_its_stragglers_had_their_grace(tmp_path: Path) -> None:
    """They go on if the plan keeps them, and their ends settle nothing again."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live, last = await to_quorum(desk, QUORUM)
        assert await pass_time(desk, clock, 4.9) == []
        assert not desk.broker.statuses[-1]["settled"]
        [settled] = await pass_time(desk, clock, 0.2)
        assert (settled["reason"], settled["stragglers"], settled["ended_seq"]) == ("quorum", 1, 3)
        assert (settled["counts"]["submitted"], settled["metrics"]["population"]["n"]) == (1, 3)
        assert desk.broker.statuses[-1]["settled"]
        assert not live.ended
        await desk.complete([last], [4])
        assert (await desk.report("reef"))["state"] == "completed"
        assert len(desk.broker.of("settled")) == 1


async def test_stragglers_are_cancelled_again_after_a_restore(tmp_path: Path) -> None:
    """The published change is carried out like those that people requested, once."""
    async with Desk.open(tmp_path / "before", clock := Clock()) as desk:
        await to_quorum(desk, CANCEL)
        await pass_time(desk, clock, 5)
        await finish(desk)
        published = desk.broker.of("change")[0]
    async with Desk.open(tmp_path / "after", clock) as desk:
        _, last = await to_quorum(desk, CANCEL)
        assert await desk.services.replay.changes.apply("reef", published, documents=1)
        assert (await desk.row(last)).run.stop_reason is StopReason.STRAGGLER
        assert not await desk.services.replay.changes.apply("reef", published, documents=1)
        await pass_time(desk, clock, 5)
        assert await desk.manifest.change_from(published["request_id"], 0) is not None


async def test_stragglers_are_cancelled_if_the_plan_says_so(tmp_path: Path) -> None:
    """That is a change of its own, which is published like a requested one; the experiment ends without them."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=5, **CANCEL))
        *names, last = await desk.launch(live, 4)
        await desk.complete(names, [1, 2, 3])
        await desk.report("reef")
        assert len(await pass_time(desk, clock, 5)) == 1
        await desk.services.executor.finish(live)
        assert desk.ledger.open_runs()[0][2].stop_reason is StopReason.STRAGGLER
        await desk.hear("failed", last, error_kind="stopped")
        await finish(desk)
        [settled] = desk.broker.of("settled")
        assert settled["stragglers"] == 2
        last_status = desk.broker.statuses[-1]
        assert (last_status["state"], last_status["counts"]["cancelled"]) == ("completed", 2)
        first, again = desk.broker.of("change")
        assert (first["request_id"], first["applied"], again["applied"]) == ("settled-reef-1", False, True)
        assert again["counts"] == {"submitted": {"cancelled": 1}, "pending": {"cancelled": 1}}
        assert again["reason"] == "the round settled without them"
        schema_checks.check(again)


async def test_the_grace_stands_still_while_the_experiment_is_paused(tmp_path: Path) -> None:
    """It goes on when the experiment is resumed."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await to_quorum(desk, QUORUM)
        await pass_time(desk, clock, 3)
        await desk.steer("pause")
        assert await pass_time(desk, clock, 1000) == []
        await desk.steer("resume")
        assert await pass_time(desk, clock, 0) == []
        assert await pass_time(desk, clock, 1.9) == []
        assert len(await pass_time(desk, clock, 0.2)) == 1


async def test_a_restart_lengthens_the_grace_only(tmp_path: Path) -> None:
    """The time until the shutdown counts, and the time until the next start doesn't."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await to_quorum(desk, QUORUM)
        await pass_time(desk, clock, 3)
        await desk.services.settling.record()
    async with Desk.open(tmp_path, clock := Clock(5000)) as desk:
        assert await pass_time(desk, clock, 0) == []
        assert await pass_time(desk, clock, 1.9) == []
        assert len(await pass_time(desk, clock, 0.2)) == 1


async def test_the_time_is_recorded_now_and_then(tmp_path: Path) -> None:
    """A crash lengthens the grace by ten seconds at most."""
    grace = {"settle": {"quorum": 3, "grace_seconds": 100}}
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await to_quorum(desk, grace)
        for _ in range(99):
            await pass_time(desk, clock, 1)
        assert desk.broker.of("settled") == []
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await pass_time(desk, clock, 0)
        assert len(await pass_time(desk, clock, 11)) == 1


async def test_the_grace_begins_anew_if_the_quorum_is_lost(tmp_path: Path) -> None:
    """A retry takes an ended job back."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        limits: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 4}}
        live = await desk.begin(plan(points=4, **QUORUM, **limits))
        *names, last, _ = await desk.launch(live)
        await desk.complete(names, [1, 2])
        await desk.hear("failed", last, error_kind="simulation")
        await pass_time(desk, clock, 0)
        await pass_time(desk, clock, 4)
        assert (await desk.steer("retry"))["counts"] == {"failed": {"pending": 1}}
        assert await pass_time(desk, clock, 10) == []
        await desk.complete(await desk.launch(live), [3])
        assert await pass_time(desk, clock, 0) == []
        assert await pass_time(desk, clock, 4.9) == []
        assert len(await pass_time(desk, clock, 0.2)) == 1


async def test_each_round_settles(tmp_path: Path) -> None:
    """A retry of an ended experiment begins another."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, limits={"max_attempts": 1}))
        [name] = await desk.launch(live)
        await desk.hear("failed", name, error_kind="simulation")
        assert (await desk.report("reef"))["settled"] is True
        await desk.steer("retry")
        assert (await desk.report("reef"))["settled"] is False
        again = desk.ledger.live("reef")
        assert again is not None
        await desk.complete(await desk.launch(again), [1])
        assert (await desk.report("reef"))["settled"] is True
        assert [settled["round"] for settled in desk.broker.of("settled")] == [1, 2]


async def test_a_round_that_was_left_before_its_document_has_one_nevertheless(tmp_path: Path) -> None:
    """An experiment may be reopened before the broker has taken the document of its last round."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, limits={"max_attempts": 1}))
        [name] = await desk.launch(live)
        desk.broker.refuse = lambda subject: errors.BrokerUnavailable("gone") if "settled" in subject else None
        await desk.hear("failed", name, error_kind="simulation")
        await desk.reporter.flush()
        assert (await desk.steer("retry"))["round"] == 2
        desk.broker.refuse = lambda _: None
        await desk.reporter.flush()
        await desk.complete(await desk.launch(live), [1])
        await desk.reporter.flush()
        assert [settled["round"] for settled in desk.broker.of("settled")] == [1, 2]
        assert [settled["reason"] for settled in desk.broker.of("settled")] == ["ended", "ended"]


async def test_a_terminal_status_waits_until_the_round_has_settled(tmp_path: Path) -> None:
    """The broker may refuse the document for a while. Other statuses go out meanwhile, with stragglers kept."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live, last = await to_quorum(desk, CANCEL)
        desk.broker.refuse = lambda subject: errors.BrokerUnavailable("gone") if "settled" in subject else None
        assert await pass_time(desk, clock, 5) == []
        await pass_time(desk, clock, 1)
        await desk.services.executor.finish(live)
        await desk.hear("failed", last, error_kind="stopped")
        await desk.reporter.flush()
        assert live.ended
        assert "completed" not in states(desk)
        desk.broker.refuse = lambda _: None
        await finish(desk)
        assert [settled["stragglers"] for settled in desk.broker.of("settled")] == [1]
        assert states(desk).count("completed") == 1


async def test_an_experiment_that_is_kept_open_settles_and_goes_on(tmp_path: Path) -> None:
    """Its status says why; `close` ends it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, keep_open=True))
        await desk.complete(await desk.launch(live), [1])
        status = await desk.report("reef")
        assert (status["state"], status["settled"], status["kept_open"]) == ("running", True, True)
        assert status["reason"] == "all its jobs have ended; it stays open until `close`"
        assert (await desk.steer("close"))["changed"] is True
        await finish(desk)
        assert states(desk)[-1] == "completed"
        assert len(desk.broker.of("settled")) == 1


# The points that a round with stragglers passes.
POINTS = (
    *("report.results", "report.cursor", "settle.stragglers", "settle.published", "settle.recorded"),
    *("steering.publishing", "steering.published", "steering.judged", "steering.applied"),
    *("ledger.concluding", "ledger.concluded", "report.file", "report.composed", "report.status"),
)


@pytest.mark.parametrize("point", POINTS)
async def test_a_death_at_any_point_settles_a_round_once(tmp_path: Path, point: str) -> None:
    """The stragglers are cancelled by one change, and the end follows. Each passage of the point has a death."""
    for passage in itertools.count(1):
        directory, broker, clock = tmp_path / str(passage), Broker(), Clock()
        async with Desk.open(directory, clock, broker) as desk:
            live = await desk.begin(plan(points=5, **CANCEL))
            await desk.complete(await desk.launch(live, 3), [1, 2, 3])
            with deaths.at(point, passage) as fate:
                await live_through(desk, clock)
        if not fate.died:
            assert passage > 1
            return
        for _ in range(2):
            async with Desk.open(directory, clock, broker) as desk:
                await live_through(desk, clock)
                assert desk.ledger.experiments() == []
        [settled] = broker.of("settled")
        assert (settled["reason"], settled["stragglers"], settled["ended_seq"]) == ("quorum", 2, 3)
        ends = [status for status in broker.statuses if status["state"] == "completed"]
        assert {status["counts"]["cancelled"] for status in ends} == {2}
        # One that was published just before the death is published again.
        assert len(ends) <= (2 if point == "report.status" else 1)
        changes = {(document["request_id"], document["applied"]) for document in broker.of("change")}
        assert changes == {("settled-reef-1", False), ("settled-reef-1", True)}
        kinds = [subject.split(".")[2] for subject, _, _ in broker.published]
        assert kinds.index("settled") > max(index for index, kind in enumerate(kinds) if kind == "result")


async def live_through(desk: Desk, clock: Clock) -> None:
    """All that a worker does until there is nothing left."""
    await finish(desk)
    for seconds in (0, 5):
        await pass_time(desk, clock, seconds)
    await finish(desk)
