"""Requests for one experiment that arrive together are recorded one after another."""

import asyncio
from pathlib import Path

from tests.support.desk import Desk, plan


async def test_a_request_that_comes_again_while_it_is_recorded_is_recorded_once(tmp_path: Path) -> None:
    """Also if it had to wait for another request, which is done by then."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=2))
        first = asyncio.create_task(desk.steer("pause"))
        second = asyncio.create_task(desk.steer("resume", request_id="again"))
        await first
        third = asyncio.create_task(desk.steer("resume", request_id="again"))
        assert await second == await third
