"""Faults of the broker other than crashes: half-open connections, and streams that are deleted or recreated."""

import asyncio
from pathlib import Path

import pytest

from tests.support import stage, wait, whole

NOTICED_SECONDS = 30.0


async def unready(theatre: stage.Stage, text: str, timeout: float) -> str:
    """Waits until /readyz reports a problem with this text; returns the answer."""

    async def reported() -> str:
        code, body = await theatre.worker.ask("/readyz")
        return body if code == 503 and text in body else ""

    return await wait.until(reported, timeout=timeout, what=f"{text!r} in /readyz")


async def half_open(directory: Path) -> None:
    """A connection that dies silently during an experiment is noticed in time, and the work ends on a new one."""
    async with stage.Stage(directory, "--slots", "10", "--delay", "0.05", proxied=True) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.publish(whole.plan("half", 400))
        await wait.until(lambda: len(theatre.oracle.accepted()) > 50, what="some runs")
        theatre.to_broker.up.drop()
        theatre.to_broker.down.drop()
        # New connections work at once, the old ones never.
        theatre.to_broker.heal()
        before = theatre.to_broker.made
        await wait.until(lambda: theatre.to_broker.made > before, timeout=NOTICED_SECONDS, what="another connection")
        await theatre.ended(30)
        await theatre.stop()
        await theatre.check()


async def recreated(directory: Path) -> None:
    """A stream that was deleted and recreated while the worker ran is a problem."""
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
    """Deleted streams of the worker's documents are a problem. The next start recreates them, and nothing is lost."""
    async with stage.Stage(directory) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        names = ("EMS_RESULTS", "EMS_STATUS", "EMS_DLQ")
        async with theatre.client() as client:
            for name in names:
                await client.jetstream().delete_stream(name)
            await client.jetstream().publish("sim.run_started", b"neither JSON nor protobuf")
        await theatre.publish(whole.plan("unheard", 3))
        for name in names:
            assert "Remedy" in await unready(theatre, f"stream {name}", 40)
        assert f'ems_trouble{{part="stream {names[0]}"}} 1.0' in (await theatre.worker.ask("/metrics"))[1]
        await theatre.stop()
        await theatre.give_back()
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.ended(30)
        assert len(await whole.stored(theatre.broker.url, "ems.experiment.result.unheard")) == 3

        async def dead_lettered() -> bool:
            async with theatre.client() as client:
                return (await client.jetstream().stream_info("EMS_DLQ")).state.messages == 1

        await wait.until(dead_lettered, what="the dead letter")
        assert (await theatre.worker.ask("/readyz"))[0] == 200
        await theatre.stop()


async def deleted_and_recreated(directory: Path) -> None:
    """The worker continues once deleted streams are recreated, and reports a problem until its next start."""
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
async def test_faults_that_take_half_a_minute_to_notice_are_noticed(tmp_path: Path) -> None:
    """These are a half-open connection, and deleted or recreated streams. The cases run at the same time."""
    await stage.together(
        half_open(tmp_path / "half"),
        recreated(tmp_path / "recreated"),
        deleted(tmp_path / "deleted"),
        deleted_and_recreated(tmp_path / "again"),
    )


@pytest.mark.parametrize("stream", ["EMS_PLANS", pytest.param("SIM_EVENTS", marks=pytest.mark.long)])
async def test_a_running_worker_reports_a_deleted_stream_and_does_not_recreate_it(tmp_path: Path, stream: str) -> None:
    """It isn't ready, reports the remedy, and continues with its other work."""
    async with stage.Stage(tmp_path) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        async with theatre.client() as client:
            await client.jetstream().delete_stream(stream)
            problem = await unready(theatre, "was deleted", 15)
            assert stream in problem
            assert "Remedy" in problem
            names = [info.config.name for info in await client.jetstream().streams_info()]
            assert stream not in names
        assert theatre.worker.running
        await asyncio.wait_for(theatre.stop(), 10)
