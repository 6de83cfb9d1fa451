"""Trouble with the broker that isn't a crash: half-open connections, streams deleted or made anew."""

import asyncio
import time
from pathlib import Path

import pytest

from tests.support import stage, wait, whole

NOTICED_SECONDS = 30.0


async def unready(theatre: stage.Stage, word: str, within: float) -> str:
    """Waits until the probe tells of this trouble; its words."""

    async def told() -> str:
        code, body = await theatre.worker.ask("/readyz")
        return body if code == 503 and word in body else ""

    return await wait.until(told, timeout=within, what=f"{word!r} in /readyz")


async def half_open(directory: Path) -> None:
    """The connection dies without a word in mid-experiment: that is noticed in time, and all ends on a new one."""
    async with stage.Stage(directory, "--slots", "10", "--delay", "0.05", proxied=True) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.publish(whole.plan("half", 400))
        await wait.until(lambda: len(theatre.oracle.accepted()) > 50, what="some runs")
        before = time.monotonic()
        theatre.to_broker.up.drop()
        theatre.to_broker.down.drop()
        # New connections work at once, the old ones never again.
        theatre.to_broker.heal()
        old = theatre.to_broker.made
        await wait.until(lambda: theatre.to_broker.made > old, timeout=NOTICED_SECONDS, what="another connection")
        assert time.monotonic() - before < NOTICED_SECONDS
        await theatre.ended(30)
        await theatre.stop()
        await theatre.check()


async def made_anew(directory: Path) -> None:
    """A stream that was deleted and created anew while the worker ran is an alarm, and stays one."""
    async with stage.Stage(directory) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        async with theatre.client() as client:
            jetstream = client.jetstream()
            config = (await jetstream.stream_info("EMS_RESULTS")).config
            await jetstream.delete_stream("EMS_RESULTS")
            await jetstream.add_stream(config)
        await unready(theatre, "EMS_RESULTS", 40)
        assert theatre.worker.running


@pytest.mark.timeout(150)
async def test_what_takes_half_a_minute_is_noticed(tmp_path: Path) -> None:
    """A half-open connection within 30 seconds; a stream made anew by the next look at the streams."""
    await stage.together(half_open(tmp_path / "half"), made_anew(tmp_path / "anew"))


@pytest.mark.parametrize("stream", ["EMS_PLANS", "SIM_EVENTS"])
async def test_a_deleted_stream_is_an_alarm_and_is_not_made_again(tmp_path: Path, stream: str) -> None:
    """The worker isn't ready, says what to do, and goes on with what it can."""
    async with stage.Stage(tmp_path) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        async with theatre.client() as client:
            await client.jetstream().delete_stream(stream)
            words = await unready(theatre, stream, 15)
            assert "deleted" in words
            assert "Remedy" in words
            names = [one.config.name for one in await client.jetstream().streams_info()]
            assert stream not in names
        assert theatre.worker.running
        await asyncio.wait_for(theatre.stop(), 10)
