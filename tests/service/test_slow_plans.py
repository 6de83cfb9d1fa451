"""Plans whose combinations are evaluated individually delay neither other plans nor the event loop."""

import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.language.problems import Problems
from ems_worker.core.points import grid, space, work_limits
from ems_worker.core.points.work_limits import WorkLimits
from ems_worker.service import expand
from ems_worker.service.base.poison import SUSPECTED_DELIVERIES
from tests.support import steps, wait
from tests.support.desk import Clock, Desk, background, plan


def slow(side: int = 100) -> dict[str, Any]:
    """A plan with two combinations that satisfy its constraint, both near the end."""
    axis = {"range": {"start": 1, "stop": side, "num": side}}
    return {
        "experiment_id": "slow",
        "base_config": {"a": 0, "b": 0},
        "parameter_space": {"a": axis, "b": axis},
        "constraints": [f"a * b == {side * (side - 1)}"],
    }


SLOW = slow()


@pytest.fixture
def impatient() -> Iterator[None]:
    """Lowers the limit of work in parsing, so that even small plans are slow to count."""
    with (
        patch.object(work_limits, "DEFAULT", WorkLimits(early_steps=1000)),
        patch.object(space, "_STEPS_PER_YIELD", 1),
    ):
        yield


@contextlib.contextmanager
def counting_after(awaited: Callable[[], bool]) -> Iterator[None]:
    """Counting, which ends at an unpredictable time, takes no step before this holds."""
    advance = grid.Grid.advance

    def later(self: grid.Grid, steps: float, problems: Problems, *, until_exact: bool = False) -> None:
        if steps != space._STEPS_PER_YIELD or self.settled or awaited():
            advance(self, steps, problems, until_exact=until_exact)

    with patch.object(grid.Grid, "advance", later):
        yield


@contextlib.asynccontextmanager
async def intake(desk: Desk) -> AsyncIterator[None]:
    """Runs the intake in the background."""
    async with background(desk.intake.run()), background(desk.intake.run_slow()):
        yield


@pytest.mark.usefixtures("impatient")
async def test_a_quick_plan_is_decided_before_a_slow_one_that_came_first(tmp_path: Path) -> None:
    """Both decisions have the exact number of points. A slow plan that is delivered again meanwhile is decided once."""
    async with Desk.open(tmp_path) as desk, intake(desk):
        slow = desk.message("ems.experiment.submit", SLOW)
        with counting_after(lambda: bool(desk.broker.of("decision"))):
            desk.broker.waiting.put_nowait([slow, desk.message("ems.experiment.submit", plan("quick")), slow])
            await wait.until(lambda: len(desk.broker.of("decision")) == 2, timeout=20)
        quick, late = desk.broker.of("decision")
        assert (quick["experiment_id"], late["experiment_id"]) == ("quick", "slow")
        assert (late["decision"], late["points"]) == ("accepted", 2)
        assert sorted(desk.broker.acked) == [1, 2]


@pytest.mark.usefixtures("impatient")
async def test_plans_with_the_same_id_are_decided_in_their_order(tmp_path: Path) -> None:
    """A later plan waits for a slow one even if it could be decided quickly."""
    async with Desk.open(tmp_path) as desk, intake(desk):
        messages = [desk.message("ems.experiment.submit", body) for body in (SLOW, plan("slow"), plan("quick"))]
        with counting_after(lambda: bool(desk.broker.of("decision"))):
            desk.broker.waiting.put_nowait(messages)
            await wait.until(lambda: len(desk.broker.of("decision")) == 3, timeout=20)
        decisions = [(decision["submission"]["seq"], decision["decision"]) for decision in desk.broker.of("decision")]
        assert decisions == [(3, "accepted"), (1, "accepted"), (2, "rejected")]


@pytest.mark.usefixtures("impatient")
async def test_a_slow_plan_counts_once_against_the_rate_of_its_publisher(tmp_path: Path) -> None:
    """Deciding it takes two rounds, but only the first counts."""
    async with Desk.open(tmp_path, plans_per_minute=1) as desk:
        async with intake(desk):
            desk.broker.waiting.put_nowait([desk.message("ems.experiment.submit", SLOW)])
            await wait.until(lambda: desk.broker.of("decision"), timeout=20)
            assert desk.broker.of("decision")[0]["decision"] == "accepted"


@pytest.mark.usefixtures("impatient")
async def test_a_slow_plan_is_not_counted_again_after_a_minute(tmp_path: Path) -> None:
    """The plans that its publisher has sent since then don't prevent its decision."""
    async with Desk.open(tmp_path, plans_per_minute=1) as desk:
        await desk.intake.take_quick([desk.message("ems.experiment.submit", SLOW)])
        desk.clock.seconds += 60
        assert (await desk.submit(plan("quick")))["decision"] == "accepted"
        async with background(desk.intake.run_slow()):
            await wait.until(lambda: len(desk.broker.of("decision")) == 2, timeout=20)
        assert desk.broker.of("decision")[1]["decision"] == "accepted"


@pytest.mark.usefixtures("impatient")
async def test_a_repeated_slow_plan_is_a_duplicate_at_once(tmp_path: Path) -> None:
    """Its points are not counted again: the manifest has their number."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(SLOW)
        with patch("ems_worker.core.points.space.settle", side_effect=AssertionError):
            again = await desk.submit(SLOW)
        assert (again["decision"], again["points"], again["jobs"]) == ("duplicate", 2, 2)


@pytest.mark.usefixtures("impatient")
async def test_a_problem_that_needs_no_count_is_reported_without_counting(tmp_path: Path) -> None:
    """A wrong model version needs no count; too many jobs are reported when they are counted."""
    async with Desk.open(tmp_path, max_jobs=1000) as desk:
        desk.versions.reported = "reef-1"
        with patch("ems_worker.core.points.space.settle", side_effect=AssertionError):
            other = await desk.submit({**SLOW, "model_version": "reef-2"})
        assert [problem["code"] for problem in other["errors"]] == ["model_version"]
        many = {**SLOW, "constraints": ["a * b < 8000"]}
        [problem] = (await desk.submit(many))["errors"]
        assert problem["code"] == "too_many_jobs"
        assert "EMS_MAX_JOBS" in problem["message"]


@pytest.mark.usefixtures("impatient")
async def test_the_message_of_a_slow_plan_is_reported_as_in_progress(tmp_path: Path) -> None:
    """Otherwise the broker would redeliver it."""

    class Hasty(Clock):
        def monotonic(self) -> float:
            self.seconds += 1
            return self.seconds

    reported: list[int] = []

    async def working(messages: Any) -> None:
        reported.extend(message.seq for message in messages)

    async with Desk.open(tmp_path, clock=Hasty()) as desk:
        with patch.object(desk.broker, "working", working):
            assert (await desk.submit(SLOW))["decision"] == "accepted"
    assert reported
    assert set(reported) == {1}


@pytest.mark.parametrize(
    ("side", "limits"),
    [(100, WorkLimits(early_steps=1000)), pytest.param(900, WorkLimits(early_steps=1000), marks=pytest.mark.long)],
    ids=["small", "large"],
)
async def test_deciding_and_expanding_a_slow_plan_leave_the_loop_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int, limits: WorkLimits
) -> None:
    """The loop turns at least once in fifty thousand function calls, a few hundredths of a second."""
    monkeypatch.setattr(work_limits, "DEFAULT", limits)
    async with Desk.open(tmp_path) as desk, intake(desk), steps.between_turns() as longest:
        desk.broker.waiting.put_nowait([desk.message("ems.experiment.submit", slow(side))])
        await wait.until(lambda: desk.broker.of("decision"), timeout=90)
        live = desk.ledger.live("slow")
        assert live is not None
        while not live.expanded:
            await desk.expander.expand(live)
        assert len(await desk.rows("slow")) == 2
        assert longest() < 50_000


@pytest.mark.usefixtures("impatient")
async def test_counting_again_yields_to_other_experiments(tmp_path: Path) -> None:
    """A chunk ends after some work, without points until they are counted; counting starts again after a restart."""
    with patch.object(expand, "_STEPS_PER_CHUNK", 1):
        async with Desk.open(tmp_path) as desk:
            await desk.submit(SLOW)
        async with Desk.open(tmp_path) as desk:
            live = desk.ledger.live("slow")
            assert live is not None
            await desk.expander.expand(live)
            assert live.record.expanded_points == 0
            while not live.expanded:
                await desk.expander.expand(live)
            assert [row.point.params for row in await desk.rows("slow")] == [{"a": 99, "b": 100}, {"a": 100, "b": 99}]


@pytest.mark.parametrize("stop", [90, 900])
async def test_a_plan_with_a_derived_value_that_fails_at_a_point_is_rejected(tmp_path: Path, stop: int) -> None:
    """The problem has the position of the expression and the values at that point."""
    text = f"""experiment_id: x
base_config: {{a: 0, b: 0}}
parameter_space:
  a: {{range: {{start: 1, stop: {stop}, step: 1}}}}
  b: {{expr: "1 / ({stop} - a)"}}
"""
    async with Desk.open(tmp_path) as desk:
        [problem] = (await desk.submit(text.encode()))["errors"]
        assert (problem["code"], problem["line"]) == ("expression_fails", 5)
        assert f"a = {stop}" in problem["message"]


@pytest.mark.usefixtures("impatient")
async def test_a_slow_plan_that_may_have_killed_the_worker_is_not_set_aside(tmp_path: Path) -> None:
    """It is decided at once, while the guard observes whether the worker survives it."""
    async with Desk.open(tmp_path) as desk:
        await desk.intake.take_quick([desk.message("ems.experiment.submit", SLOW, delivered=SUSPECTED_DELIVERIES)])
        [decision] = desk.broker.of("decision")
        assert decision["decision"] == "accepted"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("publishers", "waiting"), [(1, 8), (9, 64)])
async def test_a_slow_plan_is_rejected_if_too_many_are_waiting(tmp_path: Path, publishers: int, waiting: int) -> None:
    """At most 8 of a publisher and 64 in total wait: with too many unacknowledged messages the broker would stop."""
    async with Desk.open(tmp_path) as desk:
        for number in range(waiting + 1):
            assert desk.broker.of("decision") == []
            subject = f"ems.experiment.submit.publisher-{number % publishers}"
            await desk.intake.take_quick([desk.message(subject, {**SLOW, "experiment_id": f"slow-{number}"})])
        [decision] = desk.broker.of("decision")
        assert [problem["code"] for problem in decision["errors"]] == ["too_many_slow_plans"]
