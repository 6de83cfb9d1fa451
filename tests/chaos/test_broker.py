"""Trouble with the broker that isn't a crash: half-open connections, streams deleted or made anew."""

import asyncio
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
        theatre.to_broker.up.drop()
        theatre.to_broker.down.drop()
        # New connections work at once, the old ones never again.
        theatre.to_broker.heal()
        old = theatre.to_broker.made
        await wait.until(lambda: theatre.to_broker.made > old, timeout=NOTICED_SECONDS, what="another connection")
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


async def deleted(directory: Path) -> None:
    """Streams that only the worker writes to are gone: an alarm. Started again it makes them, and nothing is lost."""
    async with stage.Stage(directory) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        gone = ("EMS_RESULTS", "EMS_STATUS", "EMS_DLQ")
        async with theatre.client() as client:
            for name in gone:
                await client.jetstream().delete_stream(name)
            await client.jetstream().publish("sim.run_started", b"neither JSON nor protobuf")
        await theatre.publish(whole.plan("unheard", 3))
        for name in gone:
            words = await unready(theatre, f"stream {name}", 40)
            assert "Remedy" in words
        assert f'ems_trouble{{part="stream {gone[0]}"}} 1.0' in (await theatre.worker.ask("/metrics"))[1]
        await theatre.stop()
        await theatre.give_back()
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.ended(30)
        assert len(await whole.stored(theatre.broker.url, "ems.experiment.result.unheard")) == 3

        async def put_aside() -> bool:
            async with theatre.client() as client:
                return (await client.jetstream().stream_info("EMS_DLQ")).state.messages == 1

        await wait.until(put_aside, what="the dead letter")
        assert (await theatre.worker.ask("/readyz"))[0] == 200
        await theatre.stop()


async def deleted_and_made_again(directory: Path) -> None:
    """By somebody else, while the worker runs: it goes on by itself, and the alarm stays until it is started again."""
    async with stage.Stage(directory) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        async with theatre.client() as client:
            jetstream = client.jetstream()
            configs = [(await jetstream.stream_info(name)).config for name in ("EMS_RESULTS", "EMS_STATUS")]
            for config in configs:
                await jetstream.delete_stream(config.name or "")
            await theatre.publish(whole.plan("late", 3))
            await unready(theatre, "EMS_RESULTS", 40)
            for config in configs:
                await jetstream.add_stream(config)
        await theatre.ended(40)
        assert len(await whole.stored(theatre.broker.url, "ems.experiment.result.late")) == 3
        assert (await theatre.worker.ask("/readyz"))[0] == 503
        await theatre.stop()
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.check()


@pytest.mark.long
@pytest.mark.timeout(150)
async def test_what_takes_half_a_minute_is_noticed(tmp_path: Path) -> None:
    """A half-open connection within 30 seconds; a stream that is gone, or made anew, by the next look at them."""
    await stage.together(
        half_open(tmp_path / "half"),
        made_anew(tmp_path / "anew"),
        deleted(tmp_path / "deleted"),
        deleted_and_made_again(tmp_path / "again"),
    )


@pytest.mark.parametrize("stream", ["EMS_PLANS", pytest.param("SIM_EVENTS", marks=pytest.mark.long)])
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
