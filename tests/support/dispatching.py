"""Waiting for what a dispatcher in the background does."""

import contextlib
from collections.abc import AsyncIterator, Iterator, Sized
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.service import dispatch, submit
from ems_worker.service.ledger.live import Live
from tests.support import wait
from tests.support.desk import Desk, background


@contextlib.contextmanager
def short_pauses() -> Iterator[None]:
    """Shortens the pauses of dispatch and submission during the block.

    The dispatcher's longest sleep is longer than a test waits: something has to wake it.
    """
    with (
        patch.object(submit, "_FIRST_PAUSE_SECONDS", 0.01),
        patch.object(submit, "_MAX_PAUSE_SECONDS", 0.02),
        patch.object(dispatch, "_READY_POLL_SECONDS", 0.01),
        patch.object(dispatch, "_REPORT_SECONDS", 0.01),
        patch.object(dispatch, "_MAX_SLEEP_SECONDS", 60.0),
    ):
        yield


@contextlib.asynccontextmanager
async def working(directory: Path, **options: Any) -> AsyncIterator[Desk]:
    """A desk whose dispatcher runs in the background, with short pauses."""
    async with Desk.open(directory, **options) as desk:
        with short_pauses():
            async with background(desk.dispatcher.run()):
                yield desk


async def sent(desk: Desk, count: int, items: Sized | None = None) -> None:
    """Returns when this many commands have been sent, or when there are this many `items`."""
    await wait.until(lambda: len(desk.orchestrator.sent if items is None else items) >= count)


async def was_sent(desk: Desk, name: str) -> None:
    """Returns when a command for this run has been sent."""
    await wait.until(lambda: name in desk.orchestrator.sent)


async def submitted(live: Live, count: int) -> None:
    """Returns when the orchestrator has this many runs of the experiment."""
    await wait.until(lambda: live.tally.by_bucket[Bucket.SUBMITTED] == count)
