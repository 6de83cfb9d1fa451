"""How long the worker waits for messages: long while it is idle, and not while a backlog keeps runs from starting."""

from collections.abc import Sequence
from pathlib import Path
from unittest.mock import patch

from ems_worker.core.wire import Message
from tests.support import wait
from tests.support.desk import Desk, background


async def test_a_wait_for_events_is_short_until_it_is_known_that_there_is_no_backlog(tmp_path: Path) -> None:
    """A backlog may end with a full batch, after which no event comes: runs are started soon all the same."""
    async with Desk.open(tmp_path) as desk:
        full = [desk.message("sim.run_started", {"simulation_id": f"x-p{point:06d}-r000-a1"}) for point in range(500)]
        batches: list[Sequence[Message]] = [full[:1], full, []]
        waits: list[float] = []
        behind: list[bool] = []

        async def events(seconds: float) -> Sequence[Message]:
            waits.append(seconds)
            behind.append(desk.dispatcher.behind)
            return batches.pop(0) if batches else await desk.broker.waiting.get()

        with patch.object(desk.broker, "events", events):
            async with background(desk.tracker.run()):
                await wait.until(lambda: len(waits) == 4)
        first, idle, short, last = waits
        assert first == short < idle == last
        assert behind == [False, False, True, False]
