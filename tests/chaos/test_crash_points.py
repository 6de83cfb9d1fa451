"""The worker dies at each named point of its way, is started again, and everything ends as if it hadn't."""

import re
from pathlib import Path
from typing import Any

import pytest

from ems_worker.service.base import crash
from tests.support import invariants, oracle, stage, whole

# Each experiment has a job that is tried again, one that fails for good, and one that doesn't count as failed.
FAILURES = ("*-p000001-r000-a1:infrastructure", "*-p000002-r001-a*:simulation", "*-p000003-r000-a*:infeasible")
# Never ends by itself: its time limit ends it.
HELD = "limits-*-p000000-r000-a1"
EXPECTED = invariants.Expected(oracle.Failures.parse(FAILURES), retried=True, late=(HELD,), window=5)

# Deaths in a row, each of a worker that takes up what the ones before left. Where a point is passed often, dying there
# at the first time is something else than later (`name:3`: the third time).
DEATHS = {
    "on a plan's way in": ["accept.read", "accept.decided", "accept.recorded", "accept.acked", "accept.published"],
    "of expansion and submission": [
        *("expand.chunk", "expand.begun", "dispatch.claimed", "dispatch.claimed:3", "dispatch.answered"),
        *("dispatch.answered:2", "dispatch.settled", "dispatch.settled:3"),
    ],
    "of tracking and time limits": [
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
    "while somebody asks for a retry": ["control.answered", "control.carried_out", "control.recorded"],
    "at the end and on the way out": [
        *("report.results", "report.results:2", "report.cursor", "report.cursor:3", "report.composed"),
        *("report.composed:3", "report.status", "report.status:2", "ledger.concluding", "ledger.concluded"),
        "report.file",
    ],
}


def name(place: str) -> str:
    """The experiment that passes the point."""
    return re.sub("[.:]", "-", place)


def plan(place: str) -> dict[str, Any]:
    seconds = 1 if place.startswith("limits.") else 60
    return whole.plan(name(place), 6, 2, limits={"max_attempts": 2, "max_failed": 3, "run_timeout_seconds": seconds})


# Each death is a worker's start: one of the five stories is enough for every run of the tests.
QUICK = ("on a plan's way in",)


@pytest.mark.parametrize(
    "deaths", [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in DEATHS]
)
async def test_deaths_at_every_point_change_nothing(tmp_path: Path, deaths: str) -> None:
    """At each death the rules hold as far as they can, and in the end all of them, for every experiment."""
    flags = [flag for pattern in FAILURES for flag in ("--fail", pattern)]
    async with stage.Stage(tmp_path, "--slots", "5", "--hold", HELD, *flags) as theatre:
        for place in DEATHS[deaths]:
            theatre.worker.arm(place)
            theatre.worker.start()
            await theatre.publish(plan(place))
            if place.startswith("control."):
                await theatre.ended()
                assert await theatre.ask("retry", 1, request_id=place, experiment_id=name(place)) is None
            await theatre.worker.died()
            theatre.check_now(EXPECTED)
            await theatre.give_back()
        theatre.worker.arm(None)
        theatre.worker.start()
        await theatre.ended()
        for place in DEATHS[deaths]:
            if place.startswith("control."):
                # Asked again, it has been carried out, once.
                answer = await theatre.ask("retry", request_id=place, experiment_id=name(place))
                assert answer is not None
                assert (answer["changed"], answer["round"]) == (True, 2)
        await theatre.stop()
        await theatre.check(EXPECTED)


def test_every_point_has_its_death() -> None:
    """A point that is added is tried."""
    tried = {place.partition(":")[0] for places in DEATHS.values() for place in places}
    assert tried == set(crash.POINTS)
