"""What the probes and the metric of troubles tell, and the look-out for streams that are gone or others than before."""

import dataclasses
from pathlib import Path

import pytest

from ems_worker.core.wire import StreamIdentity
from ems_worker.service.health import Health, Upkeep
from tests.support import wait
from tests.support.desk import Desk, background

PART = "stream EMS_RESULTS"
STREAMS = {name: StreamIdentity(name, 7, 1, 40) for name in ("EMS_PLANS", "EMS_RESULTS", "EMS_STATUS", "EMS_DLQ")}
WITHOUT = {name: one for name, one in STREAMS.items() if name != "EMS_RESULTS"}


def anew(created_ns: int) -> dict[str, StreamIdentity]:
    """The streams, that of the results made then."""
    return {**STREAMS, "EMS_RESULTS": dataclasses.replace(STREAMS["EMS_RESULTS"], created_ns=created_ns, last_seq=0)}


def watching(desk: Desk) -> tuple[Health, Upkeep]:
    """The health and upkeep of a worker that has started."""
    desk.health.beat()
    desk.health.trouble("start", None)
    return desk.health, desk.services.upkeep


async def test_the_metric_of_troubles_says_what_the_probe_says(tmp_path: Path) -> None:
    """By part: what was set, what is asked at each probe, and a loop that stands still."""
    async with Desk.open(tmp_path) as desk:
        health = Health(desk.clock, desk.metrics.trouble)
        health.beat()
        assert desk.count("ems_trouble", part="start") == 1
        health.trouble("start", None)
        full: list[str] = []
        health.watch("manifest", lambda: full[0] if full else None)
        health.trouble("broker", "not connected")
        assert (desk.count("ems_trouble", part="start"), desk.count("ems_trouble", part="broker")) == (0, 1)
        health.trouble("broker", None)
        assert desk.count("ems_trouble", part="manifest") == desk.count("ems_trouble", part="loop") == 0
        full.append("no room")
        desk.clock.seconds += 60
        found = {
            sample.labels["part"]
            for family in desk.metrics.registry.collect()
            if family.name == "ems_trouble"
            for sample in family.samples
            if sample.value
        }
        assert found == health.unready().keys() == {"manifest", "loop"}


async def test_a_stream_that_is_gone_is_an_alarm(tmp_path: Path) -> None:
    """Until it is there again and the worker was started again: made by that start it is none any more."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        await upkeep.check_streams(STREAMS)
        assert health.unready() == {}
        for _ in range(2):
            await upkeep.check_streams(WITHOUT)
            assert health.unready().keys() == {PART}
            assert "was deleted. Remedy" in health.unready()[PART]
            assert desk.count("ems_trouble", part=PART) == 1
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        await upkeep.check_streams(anew(8))
        assert health.unready() == {}
        await upkeep.check_streams(anew(8))
        assert health.unready() == {}


@pytest.mark.parametrize("seen", [True, False])
async def test_a_stream_that_somebody_made_anew_is_an_alarm_until_the_next_start(tmp_path: Path, seen: bool) -> None:
    """Whether it was seen to be gone or not."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        await upkeep.check_streams(STREAMS)
        if seen:
            await upkeep.check_streams(WITHOUT)
        for _ in range(2):
            await upkeep.check_streams(anew(8))
            assert "created anew" in health.unready()[PART]
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        await upkeep.check_streams(anew(8))
        assert health.unready() == {}


async def test_a_stream_that_was_made_anew_while_no_worker_ran_is_an_alarm(tmp_path: Path) -> None:
    """As is one that has fallen behind what it had."""
    async with Desk.open(tmp_path) as desk:
        await watching(desk)[1].check_streams(STREAMS)
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        behind = dataclasses.replace(STREAMS["EMS_STATUS"], last_seq=39)
        await upkeep.check_streams({**anew(8), "EMS_STATUS": behind})
        assert health.unready().keys() == {PART, "stream EMS_STATUS"}
        assert "is at sequence 39 and was at 40" in health.unready()["stream EMS_STATUS"]


async def test_a_manifest_that_was_deleted_is_trouble(tmp_path: Path) -> None:
    """Said within a second, with the remedy, until it is back."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = watching(desk)
        file, aside = tmp_path / "manifest.db", tmp_path / "aside"
        async with background(upkeep.run()):
            file.rename(aside)
            await wait.until(lambda: "manifest" in health.unready(), what="the trouble")
            assert "Remedy" in health.unready()["manifest"]
            aside.rename(file)
            await wait.until(lambda: health.unready() == {}, what="its end")
