"""What the start commands show about the orchestrator, and for how long that is reported."""

from pathlib import Path

from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome
from ems_worker.service.reach import Claimed, Reach
from tests.support.desk import Desk, plan

NAME = "reef-p000000-r000-a1"


def answer(code: str, name: str = NAME) -> Answer:
    return Answer(name, outcome(code), code, "its message")


async def test_silence_is_a_problem_as_long_as_a_run_waits_for_an_answer(tmp_path: Path) -> None:
    """After that it is one for half a minute, as long as the last call is recent."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [(run, point)] = await desk.claim(live, 1)
        reach, silent = desk.submitter.reach, answer("DEADLINE_EXCEEDED")
        reach.call_ended(Call(1.0, 1.0, (silent,)))
        reach.wait(NAME, Claimed.of(live, run, point), desk.clock.monotonic(), silent)
        desk.clock.seconds += 60
        waiting = "1 start without an answer, the oldest for 1 min"
        assert reach.problem == f"the orchestrator is slow to answer: {waiting}"
        assert reach.waits(live) == f"{waiting} (DEADLINE_EXCEEDED: its message)"
        assert reach.last_code(NAME) == "DEADLINE_EXCEEDED"
        reach.stop_waiting(NAME)
        assert desk.submitter.reach.problem is None
        assert desk.submitter.reach.waits(live) is None
        assert desk.submitter.reach.last_code(NAME) is None


async def test_a_late_call_is_no_problem_until_it_has_reached_its_deadline(tmp_path: Path) -> None:
    """The status of its experiment has the length of the wait, though."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [(run, point)] = await desk.claim(live, 1)
        late = Answer(NAME, Outcome.LATE, "")
        desk.submitter.reach.call_ended(Call(1.0, 1.0, (late,)))
        desk.submitter.reach.wait(NAME, Claimed.of(live, run, point), desk.clock.monotonic(), late)
        desk.clock.seconds += 20
        assert desk.submitter.reach.problem is None
        assert desk.submitter.reach.waits(live) == "1 start without an answer, the oldest for 20 s"


async def test_an_event_of_an_unanswered_run_lets_new_runs_be_claimed_although_others_are_silent(
    tmp_path: Path,
) -> None:
    """It shows that commands arrive; until then no run may be claimed, unless as a probe."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=20))
        reach = desk.submitter.reach
        for run, point in await desk.claim(live, 10):
            name = f"reef-p{run.point:06d}-r000-a1"
            silent = answer("DEADLINE_EXCEEDED", name)
            reach.call_ended(Call(1.0, 1.0, (silent,)))
            reach.wait(name, Claimed.of(live, run, point), desk.clock.monotonic(), silent)
        reach.runs_claimed()
        assert reach.room(5) == 0
        await desk.hear("started", NAME)
        assert reach.room(5) == 5


async def test_relief_is_announced_once_when_commands_get_through_again(tmp_path: Path) -> None:
    """This needs no settled run: an error inside the orchestrator shows that commands arrive, too."""
    reliefs: list[None] = []
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [(run, point)] = await desk.claim(live, 1)
        reach = Reach(desk.ledger, desk.orchestrator, desk.clock, lambda: reliefs.append(None))
        for number, code in enumerate(("UNAVAILABLE", "UNAVAILABLE", "INTERNAL", "INTERNAL")):
            reach.call_ended(Call(float(number), 1.0, (answer(code),)))
            reach.wait(NAME, Claimed.of(live, run, point), desk.clock.monotonic(), answer(code))
            reach.check()
            assert len(reliefs) == (number >= 2)
