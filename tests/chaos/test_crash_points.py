"""The worker dies at each named point and is started again, and everything ends as if it had not died."""

import re
from pathlib import Path
from typing import Any

import pytest

from ems_worker.service.base import crash
from tests.support import invariants, oracle, stage, wait, whole

# Each experiment has a job that is retried, one that fails for good, and an infeasible one.
FAILURES = ("*-p000001-r000-a1:infrastructure", "*-p000002-r001-a*:simulation", "*-p000003-r000-a*:infeasible")
# A run that never ends by itself: its time limit ends it.
ENDLESS = "limits-*-p000000-r000-a1"
# One that ends once it was suspended.
SUSPENDED = "suspend-*-p000000-r000-a1"
EXPECTED = invariants.Expected(oracle.Failures.parse(FAILURES), retried=True, late=(ENDLESS,), window=5)

# Sequences of deaths, each of a worker that recovered what the ones before left. At a point that is passed often, the
# first and a later time (`name:3`: the third) are different cases.
DEATHS = {
    "while a plan is accepted": [
        "accept.read",
        "accept.decided",
        "accept.recorded",
        "accept.acked",
        "accept.published",
    ],
    "in expansion and submission": [
        *("expand.chunk", "dispatch.claimed", "dispatch.claimed:3", "dispatch.answered"),
        *("dispatch.answered:2", "dispatch.settled", "dispatch.settled:3"),
    ],
    "in tracking and time limits": [
        *(
            "track.read:5",
            "track.decoded",
            "track.decoded:2",
            "track.recorded",
            "track.recorded:3",
            "track.acked",
            "track.acked:2",
        ),
        *("limits.marked", "limits.stopped"),
    ],
    # The last points come first: the worker that follows finishes the change that was interrupted.
    "in a retry": ["steering.applied", "steering.judged", "steering.recorded"],
    "before a change is published": ["steering.publishing"],
    "after a change is published": ["steering.published"],
    "in an extension": ["extend.returned", "extend.withdrawn", "extend.matched", "extend.begun", "extend.identified"],
    "in reports and at the end": [
        *("report.results", "report.results:2", "report.cursor", "report.cursor:3", "report.composed"),
        *("report.composed:3", "report.status", "report.status:2", "ledger.concluding", "ledger.concluded"),
        *("settle.published", "settle.recorded", "report.file"),
    ],
}
# Deaths between the orchestrator's answer to a PAUSE or RESUME and its record.
PAUSES = ("suspend.paused", "suspend.resumed")

# Points that experiments pass whose jobs are cancelled before they start, or that are removed: the tests of services
# have these deaths.
ELSEWHERE = {"report.points", "settle.stragglers", "remove.recorded", "remove.purging"}


def name(point: str) -> str:
    """The id of the experiment that passes the point."""
    return re.sub("[.:]", "-", point)


def plan(point: str) -> dict[str, Any]:
    seconds = 1 if point.startswith("limits.") else 60
    return whole.plan(name(point), 6, 2, limits={"max_attempts": 2, "max_failed": 3, "run_timeout_seconds": seconds})


def change(point: str) -> tuple[str, dict[str, Any]] | None:
    """The request that passes the point, as a verb and its keys; None if the plan alone passes it."""
    common = {"request_id": point, "experiment_id": name(point)}
    if point.startswith("steering."):
        return "retry", common
    if point.startswith("extend."):
        # All points are there, and stay there.
        limits = {**plan(point)["limits"], "max_concurrent": 5}
        return "extend", {**common, "plan": {**plan(point), "limits": limits}, "withdraw": True}
    return None


async def insist(theatre: stage.Stage, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request, which is repeated until the worker has started and the change is carried out."""

    async def answer() -> dict[str, Any]:
        answered = await theatre.ask(verb, **body)
        return answered if answered is not None and answered["applied"] else {}

    return await wait.until(answer, timeout=20, what=f"{verb} to be carried out")


@pytest.mark.long
@pytest.mark.parametrize("deaths", DEATHS)
async def test_deaths_at_the_named_points_change_nothing(tmp_path: Path, deaths: str) -> None:
    """At each death the rules for every moment hold, and in the end all rules, for every experiment."""
    flags = [flag for pattern in FAILURES for flag in ("--fail", pattern)]
    async with stage.Stage(tmp_path, "--slots", "5", "--hold", ENDLESS, *flags) as theatre:
        for point in DEATHS[deaths]:
            theatre.worker.arm(point)
            theatre.worker.start()
            await theatre.publish(plan(point))
            if (request := change(point)) is not None:
                await theatre.ended()
                assert await theatre.ask(request[0], 1, **request[1]) is None
            await theatre.worker.died()
            theatre.check_now(EXPECTED)
            await theatre.give_back()
        theatre.worker.arm(None)
        theatre.worker.start()
        await theatre.ended()
        for point in DEATHS[deaths]:
            if (request := change(point)) is not None:
                # The repeated request has been carried out once.
                answer = await insist(theatre, *request)
                assert (answer["changed"], answer["round"]) == (True, 2 if request[0] == "retry" else 1)
        await theatre.ended()
        await theatre.stop()
        await theatre.check(EXPECTED)


async def started(theatre: stage.Stage, simulation_id: str) -> None:
    """Returns when the orchestrator has the run."""
    await wait.until(lambda: theatre.oracle.accepted()[simulation_id], what=f"{simulation_id} to start")


@pytest.mark.long
async def test_deaths_while_runs_are_suspended_and_resumed_leave_none_suspended(tmp_path: Path) -> None:
    """The change is applied by the next worker, and every run ends."""
    flags = [flag for pattern in FAILURES for flag in ("--fail", pattern)]
    async with stage.Stage(tmp_path, "--slots", "5", "--pausing", "--hold", SUSPENDED, *flags) as theatre:

        async def steer(verb: str, point: str, **more: bool) -> tuple[str, dict[str, Any]]:
            request = {"request_id": f"{verb}-{point}", "experiment_id": name(point), **more}

            async def reply() -> dict[str, Any] | None:
                return await theatre.ask(verb, 1, **request)

            await wait.until(reply, what=f"the reply to {verb}")
            return verb, request

        for point in PAUSES:
            theatre.worker.arm(point)
            theatre.worker.start()
            await theatre.publish(plan(point))
            held = SUSPENDED.replace("suspend-*", name(point))
            await started(theatre, held)
            pause = await steer("pause", point, now=True)
            if point == "suspend.resumed":
                await insist(theatre, *pause)
                await steer("resume", point)
            await theatre.worker.died()
            theatre.check_now(EXPECTED)
            await theatre.give_back()
        theatre.worker.arm(None)
        theatre.worker.start()
        for point in PAUSES:
            await insist(theatre, *await steer("resume", point))
        await theatre.ended()
        await theatre.stop()
        await theatre.check(EXPECTED)


def test_there_is_a_death_at_every_named_point() -> None:
    """The sequences have to include each new point."""
    tried = {point.partition(":")[0] for points in DEATHS.values() for point in points}
    assert tried | set(PAUSES) | ELSEWHERE == set(crash.POINTS)
