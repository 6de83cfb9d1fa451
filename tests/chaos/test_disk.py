"""A full disk: nothing is acknowledged or sent that isn't recorded, nothing is lost, and no restart is needed."""

import resource
from pathlib import Path

import pytest

from tests.support import invariants, stage, wait, whole


def limit_files(theatre: stage.Stage, size: int) -> None:
    """Makes every write of the worker fail that would make a file larger than this, as on a full disk."""
    resource.prlimit(theatre.worker.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


async def acked(theatre: stage.Stage) -> int:
    """How many plan messages the worker has acknowledged."""
    async with theatre.client() as client:
        info = await client.jetstream().consumer_info("EMS_PLANS", "ems-worker-plans")
        assert info.ack_floor is not None
        return int(info.ack_floor.stream_seq)


@pytest.mark.parametrize(
    ("room", "jobs"),
    [
        ("for nothing", 600),
        pytest.param("for nothing", 3000, marks=pytest.mark.long),
        pytest.param("for the log", 3000, marks=pytest.mark.long),
    ],
)
async def test_a_full_disk_stops_all_work_and_loses_nothing(tmp_path: Path, room: str, jobs: int) -> None:
    """The worker isn't ready and acknowledges nothing. It continues by itself once there is room."""
    async with stage.Stage(tmp_path, "--slots", "50", "--delay", "0.02") as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.publish(whole.plan("before", 20))
        await theatre.ended()
        pid = theatre.worker.pid
        log_size = theatre.worker.log.stat().st_size
        limit_files(theatre, max(200_000, log_size + 100_000) if room == "for the log" else log_size)
        await theatre.publish(whole.plan("large", jobs))

        async def reported() -> bool:
            code, body = await theatre.worker.ask("/readyz")
            return code == 503 and "manifest" in body

        await wait.until(reported, timeout=30, what="the worker to report that it can't write")
        before = await acked(theatre)
        await theatre.publish(whole.plan("meanwhile", 5))
        theatre.check_now(invariants.Expected(window=50))
        recorded = [experiment["experiment_id"] for experiment in theatre.local().experiments]
        assert "meanwhile" not in recorded
        assert await acked(theatre) == before
        assert theatre.worker.running

        limit_files(theatre, resource.RLIM_INFINITY)
        await theatre.worker.ready()
        await theatre.ended(60)
        assert theatre.worker.pid == pid
        await theatre.stop()
        await theatre.check(invariants.Expected(window=50))
