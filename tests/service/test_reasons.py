"""Why an experiment makes no progress: one place chooses the reason, and every status and reply has the same."""

import json
from pathlib import Path

from ems_worker.service.reasons import MAX_REASON, Reasons
from tests.support.desk import Desk, plan


async def test_the_first_part_with_a_reason_wins(tmp_path: Path) -> None:
    """The reason of an experiment's own state comes first; every reason is a single line of limited length."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        said: dict[str, str | None] = {"broker": None, "orchestrator": "away"}
        assert Reasons(()).of(live) is None
        reasons = Reasons((lambda _: said["broker"], lambda one: f"{one.experiment_id}: {said['orchestrator']}"))
        assert reasons.of(live) == "reef: away"
        said["broker"] = "no\nrights" + "!" * 9999
        words = reasons.of(live)
        assert words is not None
        assert words.startswith("no rights!")
        assert len(words) == MAX_REASON
        await desk.launch(live)
        await desk.hear("failed", "reef-p000000-r000-a1", error_kind="simulation")
        assert reasons.of(live) == live.record.reason
        assert live.record.reason not in (None, words)


async def test_replies_about_an_experiment_have_the_reason(tmp_path: Path) -> None:
    """Both `get` and `list` have it at once, without waiting for a status."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=1))
        desk.orchestrator.is_ready = False
        queries = desk.services.queries.handlers()
        away = "the orchestrator can't be reached: 127.0.0.1:50051: connection refused"
        assert json.loads(await queries["get"](b'{"experiment_id": "reef"}'))["reason"] == away
        [listed] = json.loads(await queries["list"](b"{}"))["experiments"]
        assert listed["reason"] == away
