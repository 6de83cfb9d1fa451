"""A plan in the object store is decided once its object is there and has the digest of the message."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.core import digests
from ems_worker.core.wire import Message
from ems_worker.service.intake import contents
from tests.support.desk import Broker, Desk, plan

PLAN = json.dumps(plan()).encode()
HEADERS = {contents.OBJECT: "plan", contents.DIGEST: digests.text(digests.of(PLAN))}


@dataclass
class ObjectBroker(Broker):
    """A broker with one object in its store, or none; it records for how long messages are postponed."""

    content: bytes | None = None
    delays: list[float] = field(default_factory=list)

    async def plan_object(self, name: str, max_bytes: int) -> bytes:
        if self.content is None:
            raise errors.NotFound(f"there is no object {name}")
        return self.content

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        self.delays.append(delay_seconds)


@pytest.mark.parametrize(
    ("content", "headers", "code"),
    [
        (PLAN, HEADERS, None),
        (b"another", HEADERS, "plan_object_digest"),
        (PLAN, {contents.OBJECT: "plan"}, "plan_object_digest"),
        (PLAN, {**HEADERS, contents.DIGEST: "SHA-256="}, "plan_object_digest"),
    ],
    ids=["same", "replaced", "no digest", "invalid digest"],
)
async def test_an_object_needs_the_digest_of_its_message(
    tmp_path: Path, content: bytes, headers: dict[str, str], code: str | None
) -> None:
    """Otherwise a plan could be replaced after its publisher sent the message."""
    async with Desk.open(tmp_path, broker=ObjectBroker(content=content)) as desk:
        decision = await desk.submit(b"", headers=headers)
        assert [problem["code"] for problem in decision["errors"]] == ([] if code is None else [code])


async def test_a_missing_object_is_awaited_with_growing_delays_and_then_rejected(tmp_path: Path) -> None:
    """The message may have overtaken its object, which is looked for at each of five deliveries."""
    broker = ObjectBroker()
    async with Desk.open(tmp_path, broker=broker) as desk:
        for delivered in (1, 2, 3, 4, 5):
            assert broker.of("decision") == []
            await desk.intake.take(desk.message("ems.experiment.submit", b"", headers=HEADERS, delivered=delivered))
        assert broker.delays == [0.5, 1.0, 2.0, 4.0]
        [decision] = broker.of("decision")
        assert [problem["code"] for problem in decision["errors"]] == ["plan_object_missing"]
