"""The window of open calls: who gets a place, who gives it up, and who is set aside."""

import asyncio
from collections.abc import Iterator
from unittest.mock import patch

import pytest

from ems_worker.adapters.orchestrator import window
from ems_worker.adapters.orchestrator.window import Window
from tests.support import wait

LONG = 3600.0


class Call:
    """A call that holds a place until it is answered."""

    def __init__(self, of: Window, patience: float = LONG) -> None:
        self.began = self.aside = False
        self.answered = asyncio.Event()
        self.task = asyncio.create_task(self._run(of, patience))

    async def _run(self, of: Window, patience: float) -> None:
        async with of.place(lambda: patience, self._set_aside):
            self.began = True
            await self.answered.wait()

    def _set_aside(self) -> None:
        self.aside = True


async def turns() -> None:
    """All that can happen now happens."""
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def little_room_aside() -> Iterator[None]:
    with patch.object(window, "_ASIDE_TIMES", 2), patch.object(window, "_LOOK_SECONDS", 0.0):
        yield


async def test_a_place_is_not_given_to_a_caller_that_is_cancelled_in_that_moment() -> None:
    """A call ends while those who wait for its place are cancelled, and have not had their turn yet: shutdown."""
    one = Window(1)
    first, second, third = Call(one), Call(one), Call(one)
    await turns()
    assert (first.began, second.began) == (True, False)
    second.task.cancel()
    one.resize(2)
    await asyncio.gather(second.task, return_exceptions=True)
    await turns()
    assert (second.began, third.began) == (False, True)
    for call in (first, third):
        call.answered.set()
        await call.task
    last = [Call(one), Call(one), Call(one)]
    await turns()
    assert [call.began for call in last] == [True, True, False]
    for call in last:
        call.task.cancel()
    await asyncio.gather(*(call.task for call in last), return_exceptions=True)


async def test_a_place_that_a_caller_got_and_did_not_use_goes_to_the_next() -> None:
    """It was cancelled between the two."""
    one = Window(1)
    first, second, third = Call(one), Call(one), Call(one)
    await turns()
    one.resize(2)
    second.task.cancel()
    await turns()
    assert (second.began, third.began) == (False, True)
    for call in (first, third):
        call.answered.set()
        await call.task


async def test_the_next_in_the_queue_is_not_forgotten_behind_cancelled_ones() -> None:
    """Who comes while they are still in the queue gets the free place when they are gone."""
    one = Window(1)
    first, second = Call(one), Call(one)
    await turns()
    second.task.cancel()
    first.answered.set()
    third = Call(one)
    await turns()
    assert third.began
    third.answered.set()
    await third.task


async def test_a_call_that_takes_long_makes_room_and_so_many_only() -> None:
    """Beyond that, calls keep their places; one that ends aside makes room there."""
    one = Window(1)
    calls = [Call(one, patience=0.0) for _ in range(4)]
    await wait.until(lambda: calls[2].began)
    await turns()
    assert [call.aside for call in calls] == [True, True, False, False]
    assert (calls[3].began, one.aside, one.most_aside) == (False, 2, 2)
    calls[0].answered.set()
    await wait.until(lambda: calls[3].began)
    assert calls[2].aside
    for call in calls:
        call.answered.set()
    await asyncio.gather(*(call.task for call in calls))
    assert one.aside == 0
    last = [Call(one), Call(one)]
    await turns()
    assert [call.began for call in last] == [True, False]
    for call in last:
        call.answered.set()
    await asyncio.gather(*(call.task for call in last))
