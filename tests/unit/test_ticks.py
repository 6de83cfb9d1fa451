"""Regular work wakes together."""

import asyncio
from unittest.mock import patch

import pytest

from ems_worker import ticks


@pytest.mark.parametrize("now", [0.0, 0.1, 3.49, 7.76, 1234.5])
async def test_work_of_one_period_and_of_its_multiples_wakes_at_the_same_times(now: float) -> None:
    """Each waits for a whole multiple of its period."""
    with patch.object(asyncio.get_running_loop(), "time", lambda: now):
        for seconds in (0.5, 1.0, 5.0):
            woken = now + ticks.until_next(seconds)
            assert woken == pytest.approx(round(woken / seconds) * seconds)
            assert seconds / 4 < woken - now <= 1.25 * seconds


async def test_a_timer_that_ends_a_little_early_does_not_wake_twice() -> None:
    """The next tick is a whole period later."""
    with patch.object(asyncio.get_running_loop(), "time", lambda: 6.9999):
        assert ticks.until_next(1.0) == pytest.approx(1.0001)
