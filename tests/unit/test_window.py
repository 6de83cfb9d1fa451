"""The window of open calls: which call gets a slot, when it frees the slot, and when it is set aside."""

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from ems_worker.adapters.orchestrator import window
from ems_worker.adapters.orchestrator.window import Window
from tests.support import wait

LONG = 3600.0


class Call:
    """A call that keeps its slot until it is answered."""

    def __init__(self, calls: Window, patience: float = LONG) -> None:
        self.began = self.aside = False
        self.answered = asyncio.Event()
        self.task = asyncio.create_task(self._run(calls, patience))

    async def _run(self, calls: Window, patience: float) -> None:
        async with calls.slot(lambda: patience, self._set_aside):
            self.began = True
            await self.answered.wait()

    def _set_aside(self) -> None:
        self.aside = True


async def turns() -> None:
    """Lets every task run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def little_room_aside() -> Iterator[None]:
    with patch.object(window, "ASIDE_FACTOR", 2), patch.object(window, "CHECK_SECONDS", 0.0):
        yield


async def test_a_slot_is_not_given_to_a_caller_that_is_cancelled_at_that_moment() -> None:
    """A cancelled caller whose task has not run yet, as at shutdown, is skipped."""
    calls = Window(1)
    first, second, third = Call(calls), Call(calls), Call(calls)
    await turns()
    assert (first.began, second.began) == (True, False)
    second.task.cancel()
    calls.resize(2)
    await asyncio.gather(second.task, return_exceptions=True)
    await turns()
    assert (second.began, third.began) == (False, True)
    for call in (first, third):
        call.answered.set()
        await call.task
    last = [Call(calls), Call(calls), Call(calls)]
    await turns()
    assert [call.began for call in last] == [True, True, False]
    for call in last:
        call.task.cancel()
    await asyncio.gather(*(call.task for call in last), return_exceptions=True)


async def test_a_slot_that_a_caller_got_and_did_not_use_goes_to_the_next() -> None:
    """A caller that is cancelled after it got its slot, and before its task runs, frees the slot."""
    calls = Window(1)
    first, second, third = Call(calls), Call(calls), Call(calls)
    await turns()
    calls.resize(2)
    second.task.cancel()
    await turns()
    assert (second.began, third.began) == (False, True)
    for call in (first, third):
        call.answered.set()
        await call.task


async def test_a_caller_behind_cancelled_callers_gets_the_free_slot() -> None:
    """Cancelled callers that are still in the queue don't keep a later caller waiting."""
    calls = Window(1)
    first, second = Call(calls), Call(calls)
    await turns()
    second.task.cancel()
    first.answered.set()
    third = Call(calls)
    await turns()
    assert third.began
    third.answered.set()
    await third.task


async def test_only_so_many_slow_calls_are_set_aside() -> None:
    """Beyond the limit slow calls keep their slots, until a call that was set aside ends."""
    small = Window(1)
    calls = [Call(small, patience=0.0) for _ in range(4)]
    await wait.until(lambda: calls[2].began)
    await turns()
    assert [call.aside for call in calls] == [True, True, False, False]
    assert (calls[3].began, small.aside, small.max_aside) == (False, 2, 2)
    calls[0].answered.set()
    await wait.until(lambda: calls[3].began)
    assert calls[2].aside
    for call in calls:
        call.answered.set()
    await asyncio.gather(*(call.task for call in calls))
    assert small.aside == 0
    last = [Call(small), Call(small)]
    await turns()
    assert [call.began for call in last] == [True, False]
    for call in last:
        call.answered.set()
    await asyncio.gather(*(call.task for call in last))
