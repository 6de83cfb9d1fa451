"""Recorded -> submitted: the run window is kept full and never exceeded, whatever the orchestrator answers."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sized
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle import breaker, delivery
from ems_worker.core.lifecycle.experiment import Bucket
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Capacity
from ems_worker.service import dispatch, submit
from ems_worker.service.ledger.live import Live
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan


@pytest.fixture(autouse=True)
def short_pauses() -> Iterator[None]:
    with (
        patch.object(submit, "_FIRST_PAUSE_SECONDS", 0.01),
        patch.object(submit, "_LONGEST_PAUSE_SECONDS", 0.02),
        patch.object(dispatch, "_LOOK_SECONDS", 0.01),
        patch.object(dispatch, "_TELL_SECONDS", 0.01),
    ):
        yield


@contextlib.asynccontextmanager
async def working(directory: Path, **options: Any) -> AsyncIterator[Desk]:
    """A desk whose dispatcher goes on by itself."""
    async with Desk.open(directory, **options) as desk:
        async with background(desk.dispatcher.run()):
            yield desk


async def quiet(desk: Desk) -> None:
    """Returns when the dispatcher sleeps with nothing under way."""
    # Not "nothing wakes it": it may still be at work on what woke it last.
    await wait.until(lambda: not desk.submitter.sending and desk.dispatcher.idle)
    await asyncio.sleep(0)


async def sent(desk: Desk, count: int, these: Sized | None = None) -> None:
    """Returns when so many commands have been sent, or as many of `these` are there."""
    await wait.until(lambda: len(desk.orchestrator.sent if these is None else these) >= count)


async def was_sent(desk: Desk, name: str) -> None:
    """Returns when a command for this run has been sent."""
    await wait.until(lambda: name in desk.orchestrator.sent)


async def submitted(live: Live, count: int) -> None:
    """Returns when the orchestrator has so many of its runs."""
    await wait.until(lambda: live.tally.by_bucket[Bucket.SUBMITTED] == count)


async def test_the_window_is_filled_and_never_exceeded(tmp_path: Path) -> None:
    """Each run that ends makes room for one."""
    async with working(tmp_path, run_window=3) as desk:
        live = await desk.begin(plan(points=8))
        await wait.until(lambda: len(desk.orchestrator.sent) == 3)
        for ended in range(8):
            assert live.open <= 3
            await desk.hear("completed", f"reef-p{ended:06d}-r000-a1")
            await sent(desk, min(8, ended + 4))
        await quiet(desk)
        assert sorted(desk.orchestrator.sent) == [f"reef-p{point:06d}-r000-a1" for point in range(8)]
        assert (await desk.report("reef"))["state"] == "completed"


async def test_max_concurrent_limits_one_experiment_only(tmp_path: Path) -> None:
    """The rest of the window is for the others."""
    async with working(tmp_path, run_window=10) as desk:
        small = await desk.begin(plan("small", points=9, limits={"max_concurrent": 2}))
        other = await desk.begin(plan("other", points=20))
        await wait.until(lambda: desk.ledger.open == 10)
        await quiet(desk)
        assert (small.open, other.open) == (2, 8)


async def test_a_command_says_everything_about_its_run(tmp_path: Path) -> None:
    """Its configuration as it is rendered, digest, seed, labels."""
    async with working(tmp_path) as desk:
        live = await desk.begin(plan(points=1, labels={"who": "me"}))
        await wait.until(lambda: desk.orchestrator.calls)
        [[command]] = desk.orchestrator.calls
        row = await desk.row(command.simulation_id)
        assert command.config == live.template.render({"food": 0}, row.run.seed, command.simulation_id)
        assert (command.config_sha, command.seed) == (row.run.config_sha, row.run.seed)
        assert (command.experiment_id, command.labels) == ("reef", {"who": "me"})


async def test_an_unknown_outcome_is_sent_again_under_the_same_id(tmp_path: Path) -> None:
    """Until it is settled; an attempt is not used up."""
    async with working(tmp_path) as desk:
        name = "reef-p000000-r000-a1"
        desk.orchestrator.answers[name] = deque(["UNAVAILABLE", "DEADLINE_EXCEEDED", "ALREADY_EXISTS"])
        await desk.begin(plan(points=1))
        await wait.until(lambda: len(desk.orchestrator.sent) == 3)
        await quiet(desk)
        assert desk.orchestrator.sent == [name] * 3
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_an_event_settles_what_the_answer_left_open(tmp_path: Path) -> None:
    """It is not sent again then."""
    async with working(tmp_path) as desk:
        desk.orchestrator.code = "UNAVAILABLE"
        await desk.begin(plan(points=1))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.hear("completed", "reef-p000000-r000-a1")
        await quiet(desk)
        sent = len(desk.orchestrator.sent)
        assert not desk.submitter.reach.stuck
        assert (await desk.report("reef"))["state"] == "completed"
        assert len(desk.orchestrator.sent) == sent


async def test_while_commands_do_not_get_through_nothing_new_is_claimed(tmp_path: Path) -> None:
    """And all goes on once they do."""
    async with working(tmp_path, run_window=100) as desk:
        desk.orchestrator.code = "UNAVAILABLE"
        await desk.begin(plan("first", points=2))
        await wait.until(lambda: desk.submitter.reach.stuck)
        later = await desk.begin(plan("later", points=2))
        await wait.until(lambda: len(desk.orchestrator.calls) > 3)
        assert later.open == 0
        desk.orchestrator.code = "OK"
        await wait.until(lambda: later.open == 2)


async def test_one_run_that_the_orchestrator_has_trouble_with_holds_up_nobody_else(tmp_path: Path) -> None:
    """Not even three batches of them."""
    async with working(tmp_path, run_window=1000) as desk:
        for number in range(5):
            desk.orchestrator.answers[f"bad{number}-p000000-r000-a1"] = deque(["INTERNAL"] * 10_000)
            await desk.begin(plan(f"bad{number}", points=1))
            await sent(desk, number + 1, desk.submitter.sending)
        good = await desk.begin(plan("good", points=4))
        await wait.until(lambda: good.tally.by_bucket[Bucket.SUBMITTED] == 4)
        desk.orchestrator.answers.clear()
        await wait.until(lambda: not desk.submitter.sending)
        assert desk.ledger.open == 9


async def test_a_refusal_fails_the_run_with_the_orchestrators_words(tmp_path: Path) -> None:
    """And is not tried again."""
    async with working(tmp_path) as desk:
        desk.orchestrator.answers["reef-p000000-r000-a1"] = deque(["INVALID_ARGUMENT"])
        await desk.begin(plan(points=1))
        await wait.until(lambda: not desk.ledger.open and desk.orchestrator.sent)
        await quiet(desk)
        one = (await desk.row("reef-p000000-r000-a1")).run
        assert (one.state, one.error_kind) == (RunState.FAILED, ErrorKind.REFUSED)
        assert one.error_message == "INVALID_ARGUMENT: words of it"
        assert (await desk.report("reef"))["state"] == "failed"


async def test_a_halt_is_told_and_over_by_itself(tmp_path: Path) -> None:
    """With the orchestrator's words while it lasts."""
    async with working(tmp_path) as desk:
        desk.orchestrator.code = "PERMISSION_DENIED"
        live = await desk.begin(plan(points=2))
        await wait.until(lambda: desk.submitter.reach.trouble)
        assert desk.submitter.reach.trouble == "the orchestrator refuses all runs: PERMISSION_DENIED: words of it"
        desk.orchestrator.code = "OK"
        await wait.until(lambda: desk.submitter.reach.trouble is None)
        await wait.until(lambda: live.tally.by_bucket[Bucket.SUBMITTED] == 2)


async def test_the_window_is_the_orchestrators_slots(tmp_path: Path) -> None:
    """Nothing is sent before it told them; more of them are used at once."""
    async with working(tmp_path, run_window=None) as desk:
        await desk.begin(plan(points=20))
        await quiet(desk)
        assert desk.orchestrator.sent == []
        desk.orchestrator.told.put_nowait(Capacity(2, 0, ""))
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == 2
        desk.orchestrator.told.put_nowait(Capacity(5, 0, ""))
        await wait.until(lambda: len(desk.orchestrator.sent) == 5)
        assert desk.count("ems_run_window") == 5


async def test_a_higher_priority_goes_first(tmp_path: Path) -> None:
    """Room that it can't use is for the others; what runs already goes on."""
    async with working(tmp_path, run_window=4) as desk:
        low = await desk.begin(plan("low", points=20))
        await wait.until(lambda: low.open == 4)
        high = await desk.begin(plan("high", points=3, limits={"priority": 1}))
        for ended in range(4):
            await desk.hear("completed", f"low-p{ended:06d}-r000-a1")
        await wait.until(lambda: (high.open, low.open) == (3, 1))


async def test_an_orchestrator_that_went_away_keeps_its_slots(tmp_path: Path) -> None:
    """Its return is not greeted by more runs than it has slots."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.told.put_nowait(Capacity(2, 0, ""))
        await desk.begin(plan(points=20))
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)
        desk.orchestrator.told.put_nowait(None)
        await wait.until(desk.orchestrator.told.empty)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == 2


@pytest.mark.parametrize("ready", [True, False])
async def test_without_word_of_slots_the_window_is_256(tmp_path: Path, ready: bool) -> None:
    """At once where the orchestrator is there; else some time after it came up."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.is_ready = ready
        desk.orchestrator.told.put_nowait(None)
        live = await desk.begin(plan(points=300))
        if not ready:
            await quiet(desk)
            assert live.open == 0
            desk.orchestrator.is_ready = True
        await wait.until(lambda: live.open == 256)


async def test_slots_that_are_told_late_count(tmp_path: Path) -> None:
    """By an orchestrator that was away at first."""
    async with working(tmp_path, run_window=None) as desk:
        desk.orchestrator.is_ready = False
        desk.orchestrator.told.put_nowait(None)
        live = await desk.begin(plan(points=9))
        desk.orchestrator.told.put_nowait(Capacity(4, 0, ""))
        desk.orchestrator.is_ready = True
        await wait.until(lambda: live.open == 4)
        await asyncio.sleep(0.05)
        assert live.open == 4


async def test_a_window_that_was_set_stays(tmp_path: Path) -> None:
    """Whatever the orchestrator tells."""
    async with working(tmp_path, run_window=3) as desk:
        desk.orchestrator.told.put_nowait(Capacity(100, 0, ""))
        live = await desk.begin(plan(points=9))
        await wait.until(lambda: live.open == 3)
        await quiet(desk)
        assert live.open == 3


async def test_what_one_run_that_ends_costs_does_not_grow_with_the_experiments(tmp_path: Path) -> None:
    """The queries that fill the room it leaves are as many for twenty live experiments as for two."""
    async with Desk.open(tmp_path, run_window=1) as desk:
        costs = []
        for count in (2, 20):
            while len(desk.ledger.experiments()) < count:
                await desk.begin(plan(f"reef{len(desk.ledger.experiments())}", points=9))
            before = desk.manifest.counters.reads.copy()
            async with asyncio.TaskGroup() as group:
                assert await desk.dispatcher.fill(group)
            costs.append(desk.manifest.counters.reads - before)
            await desk.hear("completed", desk.orchestrator.sent[-1])
        assert costs[0] == costs[1]
        assert costs[0]["due_counts"] == 1


async def test_a_retry_falls_due_by_itself(tmp_path: Path) -> None:
    """Nobody has to wake the dispatcher for it."""

    class Running(Clock):
        def now_ms(self) -> int:
            return super().now_ms() + round(1000 * asyncio.get_running_loop().time())

    async with working(tmp_path, clock=Running()) as desk:
        with patch("ems_worker.core.lifecycle.job.FIRST_BACKOFF_SECONDS", 0.1):
            await desk.begin(plan(points=1))
            await wait.until(lambda: desk.orchestrator.sent)
            await quiet(desk)
            await desk.hear("failed", "reef-p000000-r000-a1", error_kind="infrastructure")
            await wait.until(lambda: len(desk.orchestrator.sent) == 2)
            assert desk.orchestrator.sent[1] == "reef-p000000-r000-a2"


async def test_what_was_on_its_way_at_a_crash_is_sent_again(tmp_path: Path) -> None:
    """Under the same ids, with the same digests; the points are read once an experiment."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=5))
        other = await desk.begin(plan("other", points=2))
        claimed = [*await desk.ledger.claim(live.key, 5), *await desk.ledger.claim(other.key, 2)]
    async with Desk.open(tmp_path) as desk:
        assert len(desk.unsent) == 7
        await desk.hear("started", "reef-p000004-r000-a1")
        read = desk.manifest.points_by_number
        reads: list[int] = []

        async def note(key: int, numbers: Any) -> Any:
            reads.append(key)
            return await read(key, numbers)

        with patch.object(desk.manifest, "points_by_number", note):
            await desk.submitter.resend(desk.unsent)
        assert len(reads) == 2
        sent = {command.simulation_id: command.config_sha for call in desk.orchestrator.calls for command in call}
        assert len(sent) == 6
        assert "reef-p000004-r000-a1" not in sent
        assert set(sent.values()) <= {run.config_sha for run, _ in claimed}
        assert desk.ledger.open == 7


async def test_a_backlog_of_events_comes_before_new_runs(tmp_path: Path) -> None:
    """Until it is worked off."""
    async with working(tmp_path) as desk:
        desk.dispatcher.set_behind(True)
        await desk.begin(plan(points=2))
        await quiet(desk)
        assert desk.orchestrator.sent == []
        desk.dispatcher.set_behind(False)
        await wait.until(lambda: len(desk.orchestrator.sent) == 2)


async def test_when_most_runs_break_nothing_is_started_for_a_while(tmp_path: Path) -> None:
    """Then one run probes, and its good end lets the others go."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=20) as desk:
        await desk.begin(plan(points=40, limits={"max_attempts": 1, "max_failed": "100%"}))
        await wait.until(lambda: len(desk.orchestrator.sent) == 20)
        await quiet(desk)
        for name in list(desk.orchestrator.sent):
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        await quiet(desk)
        before = len(desk.orchestrator.sent)
        for name in desk.orchestrator.sent[20:before]:
            await desk.hear("completed", name)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before
        clock.seconds += breaker.LONGEST_PAUSE_SECONDS
        desk.dispatcher.wake()
        await wait.until(lambda: len(desk.orchestrator.sent) == before + 1)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 1
        await desk.hear("completed", desk.orchestrator.sent[-1])
        assert not desk.dispatcher.breaker_reason
        await wait.until(lambda: len(desk.orchestrator.sent) == 40)


async def test_a_healthy_run_that_goes_on_for_a_day_keeps_no_breaker_from_probing(tmp_path: Path) -> None:
    """It was open before most others broke; neither does its end count as the probe's."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=12) as desk:
        await desk.begin(plan("long", points=2))
        await sent(desk, 2)
        for name in list(desk.orchestrator.sent):
            await desk.hear("started", name)
        await desk.begin(plan("short", points=40, limits={"max_attempts": 1, "max_failed": "100%"}))
        await sent(desk, 12)
        await quiet(desk)
        for name in desk.orchestrator.sent[2:]:
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        await quiet(desk)
        before = len(desk.orchestrator.sent)
        clock.seconds += breaker.LONGEST_PAUSE_SECONDS
        desk.dispatcher.wake()
        await sent(desk, before + 1)
        await desk.hear("completed", "long-p000000-r000-a1")
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 1
        assert desk.dispatcher.breaker_reason
        # Should the probe be such a run, too, others go in its place.
        clock.seconds += breaker.LONGEST_PAUSE_SECONDS
        desk.dispatcher.wake()
        await sent(desk, before + 2)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 2
        await desk.hear("completed", desk.orchestrator.sent[before])
        assert not desk.dispatcher.breaker_reason
        await sent(desk, before + 3)


async def test_a_breaker_whose_pause_is_over_does_not_spin_while_commands_are_stuck(tmp_path: Path) -> None:
    """The dispatcher sleeps until there is news."""
    async with Desk.open(tmp_path) as desk:
        for name in await desk.launch(await desk.begin(plan(points=20))):
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        desk.clock.seconds += breaker.LONGEST_PAUSE_SECONDS
        desk.dispatcher.set_behind(True)
        looks = 0
        next_due = desk.manifest.next_due_ms

        async def count(after_ms: int) -> Any:
            nonlocal looks
            looks += 1
            return await next_due(after_ms)

        with patch.object(desk.manifest, "next_due_ms", count):
            async with background(desk.dispatcher.run()):
                await wait.until(lambda: looks)
                await asyncio.sleep(0.05)
        assert looks <= 2


async def test_the_end_of_the_dispatcher_is_not_lost_in_a_wake(tmp_path: Path) -> None:
    """A wake and a cancellation in the same moment: the cancellation counts."""
    async with Desk.open(tmp_path) as desk:
        for _ in range(20):
            task = asyncio.create_task(desk.dispatcher.run())
            await asyncio.sleep(0.005)
            desk.dispatcher.wake()
            task.cancel()
            async with asyncio.timeout(2):
                with pytest.raises(asyncio.CancelledError):
                    await task


async def test_a_start_that_hangs_holds_up_nobody_but_itself(tmp_path: Path) -> None:
    """Four batches with one each: all others are settled and follow; its own answer settles it when it comes."""
    async with working(tmp_path, run_window=1000) as desk:
        names = [f"e{number}-p000000-r000-a1" for number in range(4)]
        desk.orchestrator.hung = {name: asyncio.Event() for name in names}
        for number in range(4):
            live = await desk.begin(plan(f"e{number}", points=3))
            await submitted(live, 2)
        assert desk.ledger.open == 12
        await wait.until(lambda: len(desk.submitter.sending) == 4, what="all but those that hang to be settled")
        assert not desk.submitter.reach.stuck
        desk.orchestrator.hung[names[0]].set()
        await wait.until(lambda: len(desk.submitter.sending) == 3)
        assert (await desk.row(names[0])).run.state is RunState.SUBMITTED
        assert sorted(desk.orchestrator.sent) == sorted({*desk.orchestrator.sent})
        # Its deadline over, it is sent again, and not in a batch.
        desk.orchestrator.answers[names[1]] = deque(["DEADLINE_EXCEEDED"])
        event = desk.orchestrator.hung.pop(names[1])
        event.set()
        await wait.until(lambda: len(desk.submitter.sending) == 2)
        again = [start for call in desk.orchestrator.calls for start in call if start.simulation_id == names[1]]
        assert [start.alone for start in again] == [False, True]
        assert (await desk.row(names[1])).run.state is RunState.SUBMITTED


async def test_a_run_that_is_being_sent_is_not_sent_by_another_task(tmp_path: Path) -> None:
    """Reconciliation, say, that finds it waiting; and it may be sent again once it is settled."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        name = "reef-p000000-r000-a1"
        desk.orchestrator.hung[name] = asyncio.Event()
        claimed = [(live, run, point) for run, point in await desk.ledger.claim(live.key, 2)]
        first = asyncio.create_task(desk.submitter.submit(claimed))
        await sent(desk, 2)
        await desk.submitter.submit(claimed[:1])
        assert desk.orchestrator.sent.count(name) == 1
        desk.orchestrator.hung.pop(name).set()
        await first
        assert not desk.submitter.sending


async def test_an_overloaded_orchestrator_is_probed_by_one_new_run_now_and_then(tmp_path: Path) -> None:
    """What waits may be what it has trouble with; if the probe does no better, all wait on."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=100) as desk:
        bad = {f"bad-p{point:06d}-r000-a1": deque(["RESOURCE_EXHAUSTED"] * 100_000) for point in range(9)}
        desk.orchestrator.answers = dict(bad)
        await desk.begin(plan("bad", points=9))
        await wait.until(lambda: desk.submitter.reach.stuck)
        good = await desk.begin(plan("good", points=9))
        calls = len(desk.orchestrator.calls)
        await sent(desk, calls + 3, desk.orchestrator.calls)
        assert good.open == 0
        clock.seconds += delivery.PROBE_SECONDS
        desk.dispatcher.wake()
        await wait.until(lambda: good.tally.by_bucket[Bucket.SUBMITTED] >= 1)
        desk.orchestrator.answers.clear()
        await wait.until(lambda: desk.ledger.open == 18 and not desk.submitter.sending)


async def test_the_reason_is_in_the_status_as_long_as_it_holds(tmp_path: Path) -> None:
    """Of every experiment, though nothing else changes; the one that waits for answers says how long."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=2) as desk:
        desk.orchestrator.code = "RESOURCE_EXHAUSTED"
        await desk.begin(plan("one", points=2))
        await desk.begin(plan("other", points=2))
        await wait.until(lambda: desk.submitter.reach.trouble)
        words = "the orchestrator is overloaded: RESOURCE_EXHAUSTED: words of it"
        assert (await desk.report("one"))["reason"] == words
        assert (await desk.report("other"))["reason"] == words
        desk.orchestrator.code = "INTERNAL"
        await wait.until(lambda: desk.submitter.reach.trouble is None)
        clock.seconds += 30
        waits = "2 starts without an answer, the oldest for 30 s (INTERNAL: words of it)"
        assert (await desk.report("one"))["reason"] == waits
        assert (await desk.report("other"))["reason"] is None
        desk.orchestrator.is_ready = False
        away = "the orchestrator can't be reached: 127.0.0.1:50051: connection refused"
        assert (await desk.report("one"))["reason"] == (await desk.report("other"))["reason"] == away
        desk.orchestrator.is_ready, desk.orchestrator.code = True, "OK"
        await wait.until(lambda: not desk.submitter.sending)
        assert (await desk.report("one"))["reason"] is None


async def test_silence_is_told_until_there_is_an_answer_or_nothing_left_to_answer(tmp_path: Path) -> None:
    """An event shows that the command arrived: others are started then, however late the answers are."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=9) as desk:
        desk.orchestrator.code = "DEADLINE_EXCEEDED"
        await desk.begin(plan(points=20))
        await wait.until(lambda: desk.submitter.reach.stuck)
        clock.seconds += 20
        slow = "the orchestrator is slow to answer"
        desk.orchestrator.crowded = True
        words = f"{slow}: 9 starts without an answer, the oldest for 20 s; no more calls can wait beside others"
        assert desk.submitter.reach.trouble == words
        desk.orchestrator.crowded = False
        await desk.hear("completed", "reef-p000000-r000-a1")
        await wait.until(lambda: "reef-p000009-r000-a1" in desk.orchestrator.sent)
        for point in range(1, 20):
            await was_sent(desk, f"reef-p{point:06d}-r000-a1")
            await desk.hear("completed", f"reef-p{point:06d}-r000-a1")
        await wait.until(lambda: not desk.submitter.sending)
        assert desk.submitter.reach.trouble == f"{slow}: the last starts had no answer in time"
        clock.seconds += 31
        assert desk.submitter.reach.trouble is None
