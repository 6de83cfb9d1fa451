"""One publisher can't take everything: limits of plans a minute, caps, and nothing that they leave behind for ever."""

import base64
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from ems_worker.core.wire import StreamIdentity
from tests.service.test_health import started
from tests.support.desk import CREATED_NS, Desk, plan


async def sent(desk: Desk, publisher: str, body: Any, **changes: Any) -> dict[str, Any]:
    """The decision on a plan of this publisher."""
    await desk.intake.take(desk.message(f"ems.experiment.submit.{publisher}", body, **changes))
    return desk.broker.of("decision")[-1]


def codes(decision: dict[str, Any]) -> list[str]:
    """What it was rejected for; nothing where it was accepted."""
    return [one["code"] for one in decision["errors"]]


async def test_made_up_names_have_a_limit_together(tmp_path: Path) -> None:
    """The publisher's own limit stands beside it."""
    async with Desk.open(tmp_path, plans_per_minute=2, plans_per_minute_total=5) as desk:
        found = [codes(await sent(desk, f"name-{n}", plan(f"reef-{n}"))) for n in range(7)]
        assert found == [[]] * 5 + [["429"]] * 2
        assert desk.broker.of("decision")[-1]["submission"]["seq"] == 7


async def test_a_repeated_plan_is_answered_over_the_limit_and_counts_nowhere(tmp_path: Path) -> None:
    """Whoever sends it: it is known by its bytes and isn't read again."""
    async with Desk.open(tmp_path, plans_per_minute=2, plans_per_minute_total=4) as desk:
        first = await sent(desk, "a", plan("one", limits={"max_concurrent": 1}))
        for _ in range(20):
            again = await sent(desk, "a", plan("one", limits={"max_concurrent": 1}))
            assert again == {**first, "decision": "duplicate", "submission": again["submission"]}
        assert codes(await sent(desk, "a", plan("two"))) == []
        assert codes(await sent(desk, "a", plan("three"))) == ["429"]
        assert (await sent(desk, "a", plan("two")))["decision"] == "duplicate"
        assert (await sent(desk, "b", plan("two")))["decision"] == "duplicate"
        assert desk.count("ems_submissions_total", decision="duplicate") == 22


async def test_a_plan_in_the_object_store_is_known_by_its_digest(tmp_path: Path) -> None:
    """Without being read from there."""
    async with Desk.open(tmp_path) as desk:
        body = json.dumps(plan()).encode()
        await sent(desk, "a", body)
        digest = base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode()
        headers = {"Ems-Plan-Object": "gone", "Ems-Plan-Digest": f"SHA-256={digest}"}
        assert (await sent(desk, "a", b"", headers=headers))["decision"] == "duplicate"


async def test_the_same_bytes_are_read_where_they_may_mean_another_plan(tmp_path: Path) -> None:
    """A base file that was changed is a conflict; a plan without an id is a new experiment each time."""
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


async def test_a_publisher_has_so_many_experiments_open(tmp_path: Path) -> None:
    """Its own only; one that has ended makes room, and a duplicate needs none."""
    async with Desk.open(tmp_path, max_open_experiments=1) as desk:
        assert codes(await sent(desk, "a", plan("one", points=1))) == []
        refused = await sent(desk, "a", plan("two"))
        assert codes(refused) == ["too_many_open_experiments"]
        assert (refused["experiment_id"], await desk.manifest.experiment("two")) == (None, None)
        assert (await sent(desk, "a", plan("one", points=1)))["decision"] == "duplicate"
        assert codes(await sent(desk, "b", plan("three"))) == []
        live = desk.ledger.live("one")
        assert live is not None
        await desk.expander.expand(live)
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        assert codes(await sent(desk, "a", plan("two"))) == []


async def test_a_publisher_has_so_many_jobs_open(tmp_path: Path) -> None:
    """Counted over its open experiments and the plan."""
    async with Desk.open(tmp_path, max_open_jobs=5) as desk:
        assert codes(await sent(desk, "a", plan("one", points=3))) == []
        assert codes(await sent(desk, "a", plan("two", points=3))) == ["too_many_open_jobs"]
        assert codes(await sent(desk, "a", plan("two", points=2))) == []


async def test_a_priority_over_the_cap_is_rejected(tmp_path: Path) -> None:
    """At its place in the plan."""
    async with Desk.open(tmp_path, max_priority=5) as desk:
        assert codes(await sent(desk, "a", plan("one", limits={"priority": 6}))) == ["priority_too_high"]
        assert codes(await sent(desk, "a", plan("one", limits={"priority": 5}))) == []


async def test_a_plan_that_is_heard_again_after_a_restore_needs_no_room(tmp_path: Path) -> None:
    """What ended since the backup looks open until its events are heard again."""
    async with Desk.open(tmp_path, max_open_experiments=1) as desk:
        subject = "ems.experiment.submit.a"
        await desk.intake.take_again([desk.message(subject, plan(name)) for name in ("one", "two")])
        assert [one["decision"] for one in desk.broker.of("decision")] == ["accepted", "accepted"]


@pytest.mark.parametrize(
    ("first_seq", "days", "left"),
    [
        (1, 0, {1, 2, 3, 4}),  # all messages are there still
        (3, 0, {1, 3, 4}),  # the duplicate before goes, what was accepted stays
        (9, 0, {1, 4}),  # the newest says how far the stream was decided
        (1, 31, {1, 2, 3, 4}),
    ],
)
async def test_decisions_that_made_nothing_go_with_their_messages(
    tmp_path: Path, first_seq: int, days: int, left: set[int]
) -> None:
    """Rejections and duplicates are kept as long as the stream can deliver their messages again."""
    async with Desk.open(tmp_path) as desk:
        messages = [desk.message("ems.experiment.submit", body) for body in (plan(), plan(), {"x": 1}, {"y": 1})]
        for message in messages:
            await desk.intake.take(message)
        desk.clock.seconds += days * 24 * 3600
        upkeep = started(desk)[1]
        await upkeep.drop_submissions({})
        await upkeep.drop_submissions({"EMS_PLANS": StreamIdentity("EMS_PLANS", CREATED_NS, first_seq, 9)})
        assert {one.seq for one in messages if await desk.manifest.submission(one.identity)} == left
        assert await desk.manifest.last_plan(CREATED_NS) == 4


@pytest.mark.parametrize("later_ns", [-1, 1])
@pytest.mark.parametrize(("days", "kept"), [(29, True), (31, False)])
async def test_those_of_a_stream_that_is_gone_go_after_a_month(
    tmp_path: Path, later_ns: int, days: int, kept: bool
) -> None:
    """It may have been restored meanwhile."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", {"x": 1})
        await desk.intake.take(message)
        desk.clock.seconds += days * 24 * 3600
        now = StreamIdentity("EMS_PLANS", CREATED_NS + later_ns, 1, 9)
        await started(desk)[1].drop_submissions({"EMS_PLANS": now})
        assert (await desk.manifest.submission(message.identity) is not None) == kept


async def test_a_decision_that_nobody_has_heard_stays(tmp_path: Path) -> None:
    """Until it is published."""
    async with Desk.open(tmp_path) as desk:
        message = desk.message("ems.experiment.submit", {"x": 1})
        await desk.intake.take(message)
        await desk.intake.take(desk.message("ems.experiment.submit", {"y": 1}))
        stored = await desk.manifest.submission(message.identity)
        assert stored is not None
        unheard = dataclasses.replace(stored, seq=1, stored_ms=stored.stored_ms + 1)
        await desk.manifest.record_submission(unheard, None)
        await desk.manifest.drop_submissions(CREATED_NS, 9, 0)
        assert await desk.manifest.submission(message.identity) is None
        assert await desk.manifest.submission(unheard.identity) is not None
