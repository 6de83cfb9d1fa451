"""Regular work that wakes together: an idle worker costs what its wake-ups cost, not what it does in them."""

import asyncio


def until_next(seconds: float) -> float:
    """The seconds until the next tick of this period, which is a whole multiple of it on the loop's clock.

    Work with the same period, or a multiple of it, wakes at the same time. A tick that is nearly there is left out: a
    timer may end a little early, and would wake for it again.
    """
    left = seconds - asyncio.get_running_loop().time() % seconds
    return left if left > seconds / 4 else left + seconds


async def wait(seconds: float) -> None:
    """Sleeps until the next tick."""
    await asyncio.sleep(until_next(seconds))
