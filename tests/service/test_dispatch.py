"""Recorded -> submitted: each claimed run is sent until an answer or an event settles it."""

import asyncio
from collections import deque
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ems_worker.core.lifecycle import delivery, retry
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.service.reach import Claimed
from tests.support import wait
from tests.support.desk import Clock, Desk, plan, quiet
from tests.support.dispatching import sent, submitted, was_sent, working


async def test_a_start_command_has_everything_about_its_run(tmp_path: Path) -> None:
    """It has the rendered configuration with its digest, the seed and the labels."""
    async with working(tmp_path) as desk:
        live = await desk.begin(plan(points=1, labels={"who": "me"}))
        await wait.until(lambda: desk.orchestrator.calls)
        [[command]] = desk.orchestrator.calls
        row = await desk.row(command.simulation_id)
        assert command.config == live.template.render({"food": 0}, row.run.seed, command.simulation_id)
        assert (command.config_sha, command.seed) == (row.run.config_sha, row.run.seed)
        assert (command.experiment_id, command.labels) == ("reef", {"who": "me"})


async def test_a_run_is_sent_again_under_the_same_id_until_it_is_settled(tmp_path: Path) -> None:
    """Sending it again costs no attempt."""
    async with working(tmp_path) as desk:
        name = "reef-p000000-r000-a1"
        desk.orchestrator.answers[name] = deque(["UNAVAILABLE", "DEADLINE_EXCEEDED", "ALREADY_EXISTS"])
        await desk.begin(plan(points=1))
        await wait.until(lambda: len(desk.orchestrator.sent) == 3)
        await quiet(desk)
        assert desk.orchestrator.sent == [name] * 3
        assert (await desk.row(name)).run.state is RunState.SUBMITTED


async def test_the_pauses_between_commands_start_over_once_a_run_is_settled(tmp_path: Path) -> None:
    """An orchestrator that settles some runs of a batch gets the others again soon."""
    failures: list[int] = []

    def noted(count: int, *_: object) -> float:
        failures.append(count)
        return 0.0

    async with Desk.open(tmp_path) as desk:
        desk.orchestrator.answers["reef-p000000-r000-a1"] = deque(["UNAVAILABLE", "UNAVAILABLE", "OK"])
        desk.orchestrator.answers["reef-p000001-r000-a1"] = deque(["UNAVAILABLE"] * 4 + ["OK"])
        live = await desk.begin(plan(points=2))
        with patch.object(retry, "pause_seconds", noted):
            await desk.launch(live)
        assert failures == [1, 2, 1, 2]


async def test_an_event_settles_a_run_whose_answer_did_not(tmp_path: Path) -> None:
    """The run isn't sent again after that."""
    async with working(tmp_path) as desk:
        desk.orchestrator.code = "UNAVAILABLE"
        await desk.begin(plan(points=1))
        await wait.until(lambda: desk.orchestrator.sent)
        await desk.hear("completed", "reef-p000000-r000-a1")
        await quiet(desk)
        commands = len(desk.orchestrator.sent)
        assert not desk.submitter.reach.stuck
        assert (await desk.report("reef"))["state"] == "completed"
        assert len(desk.orchestrator.sent) == commands


async def test_no_new_run_is_claimed_while_commands_do_not_get_through(tmp_path: Path) -> None:
    """New runs are claimed again once they do."""
    async with working(tmp_path, run_window=100) as desk:
        desk.orchestrator.code = "UNAVAILABLE"
        await desk.begin(plan("first", points=2))
        await wait.until(lambda: desk.submitter.reach.stuck)
        later = await desk.begin(plan("later", points=2))
        await wait.until(lambda: len(desk.orchestrator.calls) > 3)
        assert later.open == 0
        desk.orchestrator.code = "OK"
        await wait.until(lambda: later.open == 2)


async def test_runs_that_the_orchestrator_cannot_answer_delay_no_others(tmp_path: Path) -> None:
    """This holds even if there are more batches with such a run than may be under way at once."""
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


async def test_a_refused_run_fails_with_the_orchestrators_message(tmp_path: Path) -> None:
    """It isn't retried."""
    async with working(tmp_path) as desk:
        desk.orchestrator.answers["reef-p000000-r000-a1"] = deque(["INVALID_ARGUMENT"])
        await desk.begin(plan(points=1))
        await wait.until(lambda: not desk.ledger.open and desk.orchestrator.sent)
        await quiet(desk)
        refused = (await desk.row("reef-p000000-r000-a1")).run
        assert (refused.state, refused.error_kind) == (RunState.FAILED, ErrorKind.REFUSED)
        assert refused.error_message == "INVALID_ARGUMENT: its message"
        assert (await desk.report("reef"))["state"] == "failed"


async def test_a_refusal_of_all_runs_is_a_problem_until_one_is_accepted(tmp_path: Path) -> None:
    """The problem has the orchestrator's message."""
    async with working(tmp_path) as desk:
        desk.orchestrator.code = "PERMISSION_DENIED"
        live = await desk.begin(plan(points=2))
        await wait.until(lambda: desk.submitter.reach.problem)
        assert desk.submitter.reach.problem == "the orchestrator refuses all runs: PERMISSION_DENIED: its message"
        desk.orchestrator.code = "OK"
        await wait.until(lambda: desk.submitter.reach.problem is None)
        await wait.until(lambda: live.tally.by_bucket[Bucket.SUBMITTED] == 2)


async def test_runs_whose_commands_were_under_way_at_a_crash_are_sent_again(tmp_path: Path) -> None:
    """Ids and digests are the same, and the points are read once for each experiment."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=5))
        other = await desk.begin(plan("other", points=2))
        claimed = [*await desk.claim(live, 5), *await desk.claim(other, 2)]
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
        digests = {command.simulation_id: command.config_sha for call in desk.orchestrator.calls for command in call}
        assert len(digests) == 6
        assert "reef-p000004-r000-a1" not in digests
        assert set(digests.values()) <= {run.config_sha for run, _ in claimed}
        assert desk.ledger.open == 7


async def test_a_start_that_hangs_delays_no_other_run(tmp_path: Path) -> None:
    """With such a run in each of four batches the others are settled. Its late answer settles the run itself."""
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
        # A run whose call reached its deadline is sent again, in a call of its own.
        desk.orchestrator.answers[names[1]] = deque(["DEADLINE_EXCEEDED"])
        event = desk.orchestrator.hung.pop(names[1])
        event.set()
        await wait.until(lambda: len(desk.submitter.sending) == 2)
        again = [start for call in desk.orchestrator.calls for start in call if start.simulation_id == names[1]]
        assert [start.alone for start in again] == [False, True]
        assert (await desk.row(names[1])).run.state is RunState.SUBMITTED


async def test_a_run_that_is_being_sent_is_not_sent_by_another_task(tmp_path: Path) -> None:
    """Reconciliation, for example, may find it waiting."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        name = "reef-p000000-r000-a1"
        desk.orchestrator.hung[name] = asyncio.Event()
        claimed = [Claimed.of(live, run, point) for run, point in await desk.claim(live, 2)]
        first = asyncio.create_task(desk.submitter.submit(claimed))
        await sent(desk, 2)
        await desk.submitter.submit(claimed[:1])
        assert desk.orchestrator.sent.count(name) == 1
        desk.orchestrator.hung.pop(name).set()
        await first
        assert not desk.submitter.sending


async def test_an_overloaded_orchestrator_is_probed_by_single_new_runs(tmp_path: Path) -> None:
    """The waiting runs may be the cause. No other run is claimed until a probe has been answered."""
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


async def test_a_problem_with_the_orchestrator_is_the_reason_in_every_status_until_it_is_over(tmp_path: Path) -> None:
    """The status of an experiment whose starts wait for answers has the length of the wait."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=2) as desk:
        desk.orchestrator.code = "RESOURCE_EXHAUSTED"
        await desk.begin(plan("waiting", points=2))
        await desk.begin(plan("other", points=2))
        await wait.until(lambda: desk.submitter.reach.problem)
        overloaded = "the orchestrator is overloaded: RESOURCE_EXHAUSTED: its message"
        assert (await desk.report("waiting"))["reason"] == overloaded
        assert (await desk.report("other"))["reason"] == overloaded
        desk.orchestrator.code = "INTERNAL"
        await wait.until(lambda: desk.submitter.reach.problem is None)
        clock.seconds += 30
        waits = "2 starts without an answer, the oldest for 30 s (INTERNAL: its message)"
        assert (await desk.report("waiting"))["reason"] == waits
        assert (await desk.report("other"))["reason"] is None
        desk.orchestrator.is_ready = False
        away = "the orchestrator can't be reached: 127.0.0.1:50051: connection refused"
        assert (await desk.report("waiting"))["reason"] == (await desk.report("other"))["reason"] == away
        desk.orchestrator.is_ready, desk.orchestrator.code = True, "OK"
        await wait.until(lambda: not desk.submitter.sending)
        assert (await desk.report("waiting"))["reason"] is None


async def test_silence_is_a_problem_until_there_is_an_answer_or_no_run_waits_for_one(tmp_path: Path) -> None:
    """An event of a run shows that its command arrived, and further runs are started even without answers."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=9) as desk:
        desk.orchestrator.code = "DEADLINE_EXCEEDED"
        await desk.begin(plan(points=20))
        await wait.until(lambda: desk.submitter.reach.stuck)
        clock.seconds += 20
        slow = "the orchestrator is slow to answer"
        desk.orchestrator.crowded = True
        waiting = "9 starts without an answer, the oldest for 20 s"
        crowded = "so many calls are unanswered that new ones have to wait for them"
        assert desk.submitter.reach.problem == f"{slow}: {waiting}; {crowded}"
        desk.orchestrator.crowded = False
        await desk.hear("completed", "reef-p000000-r000-a1")
        await was_sent(desk, "reef-p000009-r000-a1")
        for point in range(1, 20):
            await was_sent(desk, f"reef-p{point:06d}-r000-a1")
            await desk.hear("completed", f"reef-p{point:06d}-r000-a1")
        await wait.until(lambda: not desk.submitter.sending)
        assert desk.submitter.reach.problem == f"{slow}: the last starts had no answer in time"
        clock.seconds += 31
        assert desk.submitter.reach.problem is None
