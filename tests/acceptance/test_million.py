"""A plan of a million jobs is accepted at once and expanded in chunks, in bounded memory and exactly once."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client
from tests.support import site as sites
from tests.support import wait
from tests.support.site import Site

JOBS = 1_000_000
MAX_GROWTH_BYTES = 100 * 1024 * 1024


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with sites.site(tmp_path, "--hold", "million-*", "--slots", "4") as servers:
        yield servers


def plan(name: str, edge: int) -> bytes:
    axis = {"range": {"start": 0, "stop": edge - 1, "num": edge}}
    body = {
        "experiment_id": name,
        "base_config": {"x": 0, "y": 0},
        "parameter_space": {"x": axis, "y": axis},
        # Its first runs never end in this test, and must not fill the run window of other experiments.
        "limits": {"max_concurrent": 2},
    }
    return json.dumps(body).encode()


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))


def expanded(site: Site) -> int:
    """The number of points that have been written to the manifest."""
    with site.database() as database:
        row = database.execute("SELECT expanded_points FROM v_experiments WHERE experiment_id = 'million'").fetchone()
        return int(row[0])


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_million_jobs_are_expanded_exactly_once_while_other_experiments_run(site: Site) -> None:
    """A kill during the expansion loses and repeats nothing, and memory grows by less than 100 MB."""
    async with client.EmsClient(site.nats.url) as ems:
        async with site.worker() as worker:
            await site.ready()
            ack = await ems.publish(plan("million", 1000))
            decision = await ems.decision(ack.seq, timeout=20)
            assert (decision["decision"], decision["jobs"]) == ("accepted", JOBS)
            await wait.until(lambda: expanded(site) > JOBS // 5, timeout=90, what="a fifth of the jobs")
            await worker.kill()
        before_restart = expanded(site)
        assert before_restart < JOBS, "the expansion ended before the crash"
        async with site.worker() as worker:
            await site.ready()
            before = resident_bytes(worker.pid)
            ack = await ems.publish(plan("other", 5))
            await ems.decision(ack.seq, timeout=20)
            assert (await ems.wait("other"))["state"] == "completed"
            assert expanded(site) < JOBS, "the other experiment waited for the expansion"
            await wait.until(lambda: expanded(site) == JOBS, timeout=120, what="all jobs")
            assert resident_bytes(worker.pid) - before < MAX_GROWTH_BYTES
            status = await ems.get("million")
            assert sum(status["counts"].values()) == status["total"] == JOBS
    with site.database() as database:
        rows, points, low, high = database.execute(
            "SELECT count(*), count(DISTINCT point), min(point), max(point) FROM runs WHERE experiment = 1"
        ).fetchone()
    assert (rows, points, low, high) == (JOBS, JOBS, 0, JOBS - 1)
