"""What the probes and the metric of problems report, and the checks for deleted and recreated streams."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from ems_worker.core.wire import StreamIdentity
from ems_worker.service.health import Health, Upkeep
from tests.support import wait
from tests.support.desk import Desk, background

PART = "stream EMS_RESULTS"
STREAMS = {name: StreamIdentity(name, 7, 1, 40) for name in ("EMS_PLANS", "EMS_RESULTS", "EMS_STATUS", "EMS_DLQ")}
WITHOUT_RESULTS = {name: identity for name, identity in STREAMS.items() if name != "EMS_RESULTS"}


def recreated(created_ns: int) -> dict[str, StreamIdentity]:
    """The streams, with an empty stream of results that was created at that time."""
    return {**STREAMS, "EMS_RESULTS": replace(STREAMS["EMS_RESULTS"], created_ns=created_ns, last_seq=0)}


def started(desk: Desk) -> tuple[Health, Upkeep]:
    """The health and upkeep of a worker that has started."""
    desk.health.beat()
    desk.health.set_problem("start", None)
    return desk.health, desk.services.upkeep


async def test_the_metric_of_problems_agrees_with_the_probe(tmp_path: Path) -> None:
    """It does so for problems that were set, for watched parts, and for an event loop that doesn't respond."""
    async with Desk.open(tmp_path) as desk:
        health = Health(desk.clock, desk.metrics.problem)
        health.beat()
        assert desk.count("ems_trouble", part="start") == 1
        health.set_problem("start", None)
        disk_problems: list[str] = []
        health.watch("manifest", lambda: disk_problems[0] if disk_problems else None)
        health.set_problem("broker", "not connected")
        assert (desk.count("ems_trouble", part="start"), desk.count("ems_trouble", part="broker")) == (0, 1)
        health.set_problem("broker", None)
        assert desk.count("ems_trouble", part="manifest") == desk.count("ems_trouble", part="loop") == 0
        disk_problems.append("the disk is full")
        desk.clock.seconds += 60
        measured = {
            sample.labels["part"]
            for family in desk.metrics.registry.collect()
            if family.name == "ems_trouble"
            for sample in family.samples
            if sample.value
        }
        assert measured == health.unready().keys() == {"manifest", "loop"}
        assert health.unhealthy() == {"loop": "the event loop has not responded for 60 s"}


async def test_a_deleted_stream_is_a_problem_until_the_next_start(tmp_path: Path) -> None:
    """The next start recreates the stream, which is no problem then."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        await upkeep.check_streams(STREAMS)
        assert health.unready() == {}
        for _ in range(2):
            await upkeep.check_streams(WITHOUT_RESULTS)
            assert health.unready().keys() == {PART}
            assert "was deleted. Remedy" in health.unready()[PART]
            assert desk.count("ems_trouble", part=PART) == 1
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        await upkeep.check_streams(recreated(8))
        assert health.unready() == {}
        await upkeep.check_streams(recreated(8))
        assert health.unready() == {}


@pytest.mark.parametrize("seen", [True, False])
async def test_a_recreated_stream_is_a_problem_until_the_next_start(tmp_path: Path, seen: bool) -> None:
    """It makes no difference whether the worker saw in between that the stream was gone."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        await upkeep.check_streams(STREAMS)
        if seen:
            await upkeep.check_streams(WITHOUT_RESULTS)
        for _ in range(2):
            await upkeep.check_streams(recreated(8))
            assert "recreated" in health.unready()[PART]
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        await upkeep.check_streams(recreated(8))
        assert health.unready() == {}


async def test_a_stream_that_was_recreated_while_no_worker_ran_is_a_problem(tmp_path: Path) -> None:
    """A stream that has lost messages is a problem, too."""
    async with Desk.open(tmp_path) as desk:
        await started(desk)[1].check_streams(STREAMS)
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        behind = replace(STREAMS["EMS_STATUS"], last_seq=39)
        await upkeep.check_streams({**recreated(8), "EMS_STATUS": behind})
        assert health.unready().keys() == {PART, "stream EMS_STATUS"}
        assert "is at sequence 39 and was at 40" in health.unready()["stream EMS_STATUS"]


async def test_a_deleted_manifest_is_a_problem(tmp_path: Path) -> None:
    """It is reported within a second, with the remedy, until the file is back."""
    async with Desk.open(tmp_path) as desk:
        health, upkeep = started(desk)
        file, aside = tmp_path / "manifest.db", tmp_path / "aside"
        async with background(upkeep.run()):
            file.rename(aside)
            await wait.until(lambda: "manifest" in health.unready(), what="the problem to be reported")
            assert "Remedy" in health.unready()["manifest"]
            aside.rename(file)
            await wait.until(lambda: health.unready() == {}, what="the problem to be over")
