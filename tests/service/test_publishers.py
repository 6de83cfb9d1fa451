"""Rates and quotas limit what a publisher can send, and records of decisions are deleted in time."""

import asyncio
import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ems_worker.core.wire import StreamIdentity
from tests.service.test_health import started
from tests.support.desk import CREATED_NS, Desk, plan


async def sent(desk: Desk, publisher: str, body: Any, **changes: Any) -> dict[str, Any]:
    """The decision on a plan that this publisher sends."""
    await desk.intake.take(desk.message(f"ems.experiment.submit.{publisher}", body, **changes))
    return desk.broker.of("decision")[-1]


def codes(decision: dict[str, Any]) -> list[str]:
    """The codes of the problems for which a plan was rejected; empty if it was accepted."""
    return [problem["code"] for problem in decision["errors"]]


async def test_all_publishers_together_have_a_rate_limit(tmp_path: Path) -> None:
    """Otherwise a publisher could exceed its own limit by changing its name."""
    async with Desk.open(tmp_path, plans_per_minute=2, plans_per_minute_total=5) as desk:
        problems = [codes(await sent(desk, f"name-{n}", plan(f"reef-{n}"))) for n in range(7)]
        assert problems == [[]] * 5 + [["429"]] * 2
        assert desk.broker.of("decision")[-1]["submission"]["seq"] == 7


async def test_a_redelivered_plan_counts_at_the_time_of_the_newest_plan(tmp_path: Path) -> None:
    """Its own time is in the past, when its publisher may not have reached the limit."""
    async with Desk.open(tmp_path, plans_per_minute=1) as desk:
        earlier_ms = desk.clock.now_ms() - 61_000
        assert codes(await sent(desk, "a", plan("first"))) == []
        assert codes(await sent(desk, "a", plan("second"), published_ms=earlier_ms, delivered=2)) == ["429"]


async def test_a_repeated_plan_counts_against_no_rate(tmp_path: Path) -> None:
    """It is recognized by its bytes, whichever publisher sends it, and is a duplicate even above the limit."""
    async with Desk.open(tmp_path, plans_per_minute=2, plans_per_minute_total=4) as desk:
        first = await sent(desk, "a", plan("first", limits={"max_concurrent": 1}))
        for _ in range(20):
            again = await sent(desk, "a", plan("first", limits={"max_concurrent": 1}))
            assert again == {**first, "decision": "duplicate", "submission": again["submission"]}
        assert codes(await sent(desk, "a", plan("second"))) == []
        assert codes(await sent(desk, "a", plan("third"))) == ["429"]
        assert (await sent(desk, "a", plan("second")))["decision"] == "duplicate"
        assert (await sent(desk, "b", plan("second")))["decision"] == "duplicate"
        assert desk.count("ems_submissions_total", decision="duplicate") == 22


async def test_a_repeated_plan_in_the_object_store_is_recognized_by_its_digest(tmp_path: Path) -> None:
    """The object isn't read, so it may be gone."""
    async with Desk.open(tmp_path) as desk:
        body = json.dumps(plan()).encode()
        await sent(desk, "a", body)
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        headers = {"Ems-Plan-Object": "gone", "Ems-Plan-Digest": f"SHA-256={digest}"}
        assert (await sent(desk, "a", b"", headers=headers))["decision"] == "duplicate"


async def test_a_plan_that_is_not_self_contained_is_read_again(tmp_path: Path) -> None:
    """A changed base file is a conflict, and each plan without an id is a new experiment."""
    root = tmp_path / "bases"
    root.mkdir()
    (root / "base.yaml").write_text("food: 1\n")
    async with Desk.open(tmp_path / "data", base_config_root=root) as desk:
        by_path = {"experiment_id": "reef", "base_config_file_path": "base.yaml"}
        assert codes(await sent(desk, "a", by_path)) == []
        (root / "base.yaml").write_text("food: 2\n")
        assert codes(await sent(desk, "a", by_path)) == ["conflict"]
        nameless = {"experiment_name": "reef", "base_config": {"food": 1}}
        ids = {(await sent(desk, "a", nameless))["experiment_id"] for _ in range(2)}
        assert len(ids) == 2


async def test_the_open_experiments_of_a_publisher_are_limited(tmp_path: Path) -> None:
    """Experiments of other publishers and experiments that have ended don't count, and duplicates aren't limited."""
    async with Desk.open(tmp_path, max_open_experiments=1) as desk:
        assert codes(await sent(desk, "a", plan("first", points=1))) == []
        refused = await sent(desk, "a", plan("second"))
        assert codes(refused) == ["too_many_open_experiments"]
        assert (refused["experiment_id"], await desk.manifest.experiment("second")) == (None, None)
        assert (await sent(desk, "a", plan("first", points=1)))["decision"] == "duplicate"
        assert codes(await sent(desk, "b", plan("third"))) == []
        live = desk.ledger.live("first")
        assert live is not None
        await desk.expander.expand(live)
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        assert codes(await sent(desk, "a", plan("second"))) == []


async def test_the_open_jobs_of_a_publisher_are_limited(tmp_path: Path) -> None:
    """The jobs of its open experiments and those of the plan count together."""
    async with Desk.open(tmp_path, max_open_jobs=5) as desk:
        assert codes(await sent(desk, "a", plan("first", points=3))) == []
        assert codes(await sent(desk, "a", plan("second", points=3))) == ["too_many_open_jobs"]
        assert codes(await sent(desk, "a", plan("second", points=2))) == []


async def test_quotas_apply_to_plans_that_are_decided_at_the_same_time(tmp_path: Path) -> None:
    """A slow plan may be recorded while another plan of its publisher is decided. Only one of two is accepted."""
    async with Desk.open(tmp_path, max_open_experiments=1) as desk:
        messages = [desk.message("ems.experiment.submit.a", plan(name)) for name in ("first", "second")]
        await asyncio.gather(*(desk.intake.take(message) for message in messages))
        decisions = [decision["decision"] for decision in desk.broker.of("decision")]
        assert sorted(decisions) == ["accepted", "rejected"]


async def test_a_priority_above_the_limit_is_rejected(tmp_path: Path) -> None:
    """The highest allowed priority is accepted."""
    async with Desk.open(tmp_path, max_priority=5) as desk:
        assert codes(await sent(desk, "a", plan("first", limits={"priority": 6}))) == ["priority_too_high"]
        assert codes(await sent(desk, "a", plan("first", limits={"priority": 5}))) == []


async def test_quotas_do_not_apply_to_plans_that_are_replayed_after_a_restore(tmp_path: Path) -> None:
    """Experiments that ended after the backup count as open until their events are replayed."""
    async with Desk.open(tmp_path, max_open_experiments=1) as desk:
        subject = "ems.experiment.submit.a"
        await desk.intake.take_again([desk.message(subject, plan(name)) for name in ("first", "second")])
        assert [decision["decision"] for decision in desk.broker.of("decision")] == ["accepted", "accepted"]


@pytest.mark.parametrize(
    ("first_seq", "days", "kept"),
    [
        (1, 0, {1, 2, 3, 4}),  # the stream still has all messages
        (3, 0, {1, 3, 4}),  # the duplicate is deleted, the accepted plan kept
        (9, 0, {1, 4}),  # the newest submission records the position in the stream
        (1, 31, {1, 2, 3, 4}),
    ],
)
async def test_rejections_and_duplicates_are_deleted_with_their_messages(
    tmp_path: Path, first_seq: int, days: int, kept: set[int]
) -> None:
    """They are kept as long as the stream can redeliver their messages."""
    async with Desk.open(tmp_path) as desk:
        messages = [desk.message("ems.experiment.submit", body) for body in (plan(), plan(), {"x": 1}, {"y": 1})]
        for message in messages:
            await desk.intake.take(message)
        desk.clock.seconds += days * 24 * 3600
        upkeep = started(desk)[1]
        await upkeep.drop_submissions({})
        await upkeep.drop_submissions({"EMS_PLANS": StreamIdentity("EMS_PLANS", CREATED_NS, first_seq, 9)})
        assert {message.seq for message in messages if await desk.manifest.submission(message.identity)} == kept
        assert await desk.manifest.last_plan(CREATED_NS) == 4


@pytest.mark.parametrize("later_ns", [-1, 1])
@pytest.mark.parametrize(("days", "kept"), [(29, True), (31, False)])
async def test_submissions_of_a_deleted_stream_are_deleted_after_a_month(
    tmp_path: Path, later_ns: int, days: int, kept: bool
) -> None:
    """Until then the stream may be restored from a backup."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", {"x": 1})
        await desk.intake.take(message)
        desk.clock.seconds += days * 24 * 3600
        now = StreamIdentity("EMS_PLANS", CREATED_NS + later_ns, 1, 9)
        await started(desk)[1].drop_submissions({"EMS_PLANS": now})
        assert (await desk.manifest.submission(message.identity) is not None) == kept


async def test_an_unpublished_decision_is_kept(tmp_path: Path) -> None:
    """Other decisions up to the same position are deleted."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", {"x": 1})
        await desk.intake.take(message)
        await desk.intake.take(desk.message("ems.experiment.submit", {"y": 1}))
        stored = await desk.manifest.submission(message.identity)
        assert stored is not None
        unpublished = replace(stored, seq=1, stored_ms=stored.stored_ms + 1)
        await desk.manifest.record_submission(unpublished, None)
        await desk.manifest.drop_submissions(CREATED_NS, 9, 0)
        assert await desk.manifest.submission(message.identity) is None
        assert await desk.manifest.submission(unpublished.identity) is not None
