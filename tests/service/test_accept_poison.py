"""A message that kills the worker repeatedly becomes a dead letter; other failures don't count against a message."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.core.wire import Message
from ems_worker.service.base.poison import Guard
from tests.support.desk import Clock, Desk, plan


def guard(desk: Desk) -> Guard:
    """A guard of plan messages."""
    return Guard(desk.manifest, desk.broker, desk.metrics, "plan")


async def test_a_message_that_killed_the_worker_three_times_becomes_a_dead_letter(tmp_path: Path) -> None:
    """It isn't read a fourth time. A message that was only delivered often is decided."""
    clock = Clock()

    async def die(_: Sequence[Message]) -> None:
        raise MemoryError

    for _ in range(3):
        async with Desk.open(tmp_path, clock) as desk:
            suspect = desk.message("ems.experiment.submit", plan(), seq=9, delivered=6)
            with pytest.raises(MemoryError):
                await guard(desk).process([suspect], die)
    async with Desk.open(tmp_path, clock) as desk:
        redelivered = desk.message("ems.experiment.submit", plan("other"), seq=10, delivered=50)
        await guard(desk).process([suspect, redelivered], desk.intake.take_again)
        assert [(kind, seq) for kind, seq, _ in desk.broker.dead] == [("plan", 9)]
        assert desk.ledger.live("other") is not None


async def test_a_message_is_not_a_suspect_because_the_broker_was_away(tmp_path: Path) -> None:
    """The worker survived each attempt, so the message is decided once the broker is back."""
    async with Desk.open(tmp_path) as desk:
        redelivered = desk.message("ems.experiment.submit", plan(), delivered=50)

        async def fail(_: Sequence[Message]) -> None:
            raise errors.BrokerUnavailable("gone")

        for _ in range(5):
            with pytest.raises(errors.BrokerUnavailable):
                await guard(desk).process([redelivered], fail)
        await guard(desk).process([redelivered], desk.intake.take_again)
        assert desk.broker.dead == []
        assert desk.ledger.live("reef") is not None
