"""The reason why an experiment makes no progress is the same in every status and reply."""

import json
from pathlib import Path

from ems_worker.service.reasons import MAX_REASON, Reasons
from tests.support.desk import Desk, plan


async def test_the_first_source_with_a_reason_wins(tmp_path: Path) -> None:
    """The experiment's own state takes precedence, and every reason is a single line of limited length."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        reasons_of: dict[str, str | None] = {"broker": None, "orchestrator": "away"}
        assert Reasons(()).of(live) is None
        reasons = Reasons(
            (lambda _: reasons_of["broker"], lambda live: f"{live.experiment_id}: {reasons_of['orchestrator']}")
        )
        assert reasons.of(live) == "reef: away"
        reasons_of["broker"] = "no\nrights" + "!" * 9999
        reason = reasons.of(live)
        assert reason is not None
        assert reason.startswith("no rights!")
        assert len(reason) == MAX_REASON
        await desk.launch(live)
        await desk.hear("failed", "reef-p000000-r000-a1", error_kind="simulation")
        assert reasons.of(live) == live.record.reason
        assert live.record.reason not in (None, reason)


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
