"""The worker's loops yield to other tasks, even if everything that they await returns at once."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from ems_worker.core.wire import Message
from tests.support.desk import Broker, Desk


class HastyBroker(Broker):
    """Returns no messages without waiting, as the client library does while its connection closes."""

    calls = 0

    def __init__(self) -> None:
        super().__init__()
        self.hundred = asyncio.Event()

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        return self._nothing()

    async def plans(self) -> Sequence[Message]:
        return self._nothing()

    def _nothing(self) -> Sequence[Message]:
        self.calls += 1
        assert self.calls < 1000, "the loop turns without yielding"
        if self.calls == 100:
            self.hundred.set()
        return ()


@pytest.mark.parametrize("part", ["tracker", "intake"])
async def test_a_loop_yields_though_the_broker_never_waits(tmp_path: Path, part: str) -> None:
    """Another task runs while the loop turns."""
    broker = HastyBroker()
    async with Desk.open(tmp_path, broker=broker) as desk:
        loop = asyncio.create_task({"tracker": desk.tracker.run, "intake": desk.intake.run}[part]())
        async with asyncio.timeout(30):
            await broker.hundred.wait()
        assert not loop.done()
        loop.cancel()
        await asyncio.gather(loop, return_exceptions=True)
