"""A manifest that comes back from a backup: the streams are replayed, and what can't be vouched for is held."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client
from tests.support import commands
from tests.support import site as sites
from tests.support.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with sites.site(tmp_path, "--hold", "held-*") as servers:
        yield servers


def plan(name: str, points: int) -> bytes:
    values = list(range(points))
    space = {"base_config": {"x": 0}, "parameter_space": {"x": values}, "metrics_to_track": ["population"]}
    return json.dumps({"experiment_id": name, **space}).encode()


async def submitted(ems: client.EmsClient, name: str, points: int) -> None:
    ack = await ems.publish(plan(name, points))
    decision = await ems.decision(ack.seq, timeout=20)
    assert decision["decision"] == "accepted", decision


def jobs(site: Site, name: str) -> list[tuple[object, ...]]:
    """What the analysis layer knows of an experiment's jobs."""
    query = "SELECT simulation_id, seed, state, params, metrics FROM v_jobs WHERE experiment_id = ? ORDER BY 1"
    with site.database() as database:
        return [tuple(row) for row in database.execute(query, (name,))]


async def test_a_restored_manifest_catches_up_with_the_streams(site: Site) -> None:
    """What was done since is there again, the same; what was under way is held, named, and goes on by resume."""
    backup = str(site.directory / "backup.db")
    async with site.worker() as worker, client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "before", 20)
        await ems.wait("before")
        told = await asyncio.to_thread(commands.run, "ems-worker", "backup", backup, env=site.settings)
        assert told.code == 0, told.err
        await submitted(ems, "after", 30)
        await ems.wait("after")
        await submitted(ems, "held-1", 3)
        async for status in ems.watch("held-1"):
            if status["counts"]["submitted"] + status["counts"]["running"] == 3:
                break
        refused = await asyncio.to_thread(commands.run, "ems-worker", "restore", backup, env=site.settings)
        assert refused.code == 6, "a running worker's manifest was replaced"
        wanted = {name: jobs(site, name) for name in ("before", "after")}
        await worker.stop(grace=15)
    restored = await asyncio.to_thread(commands.run, "ems-worker", "restore", backup, env=site.settings)
    assert restored.code == 0, restored.err
    assert "replaced-" in restored.err
    assert jobs(site, "after") == []
    async with site.worker(), client.EmsClient(site.nats.url) as ems:
        await site.ready()
        assert {name: jobs(site, name) for name in wanted} == wanted
        held = await ems.get("held-1")
        assert held["state"] == "paused"
        assert "paused after a restore" in held["reason"]
        assert (await ems.get("after"))["state"] == "completed"
        request = {"request_id": "go-on", "experiment_id": "held-1"}
        answer = await sites.changed(site, "resume", request)
        assert (answer["state"], answer["changed"]) == ("running", True)
        assert await sites.changed(site, "resume", request) == answer, "asked again it is the same answer"
        assert (await ems.get("held-1"))["state"] == "running"


async def test_an_older_copy_in_the_manifests_place_catches_up_too(site: Site) -> None:
    """As from a snapshot of the disk: nobody told the worker that it is one."""
    data, copy = site.directory / "data", site.directory / "snapshot"
    async with site.worker() as worker, client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "before", 5)
        await ems.wait("before")
        await worker.stop(grace=15)
    shutil.copytree(data, copy)
    async with site.worker() as worker, client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "after", 5)
        await ems.wait("after")
        wanted = {name: jobs(site, name) for name in ("before", "after")}
        await worker.stop(grace=15)
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    assert jobs(site, "after") == []
    async with site.worker() as worker:
        await site.ready()
        assert {name: jobs(site, name) for name in wanted} == wanted
        await worker.stop(grace=15)
    async with site.worker():
        await site.ready()
        log = (site.directory / "worker.log").read_text()
        assert log.count("manifest.restored") == 1, "caught up, it is the manifest like any other"


async def test_a_backup_is_restored_where_there_was_nothing(site: Site) -> None:
    """On a new machine the data directory need not be there; a backup that is no good makes none."""
    backup, new = site.directory / "backup.db", site.directory / "new" / "machine"
    env = site.settings | {"EMS_DATA_DIR": str(new)}
    async with site.worker(), client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "one", 2)
        await ems.wait("one")
        told = await asyncio.to_thread(commands.run, "ems-worker", "backup", str(backup), env=site.settings)
        assert told.code == 0, told.err
    (site.directory / "broken.db").write_text("no database")
    refused = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(site.directory / "broken.db"), env=env)
    assert refused.code == 6
    assert not new.parent.exists()
    restored = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(backup), env=env)
    assert restored.code == 0, restored.err
    assert (new / "manifest.db").exists()


async def test_a_backup_that_is_damaged_is_not_restored(site: Site) -> None:
    """The manifest that is there stays; the words say what is wrong."""
    async with site.worker():
        await site.ready()
    broken = site.directory / "broken.db"
    broken.write_bytes(b"not a database at all, but long enough to be looked at" * 100)
    told = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(broken), env=site.settings)
    assert told.code == 6
    assert "broken.db" in told.err
    with site.database() as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone()[0] == 0


async def test_a_backup_overwrites_nothing(site: Site) -> None:
    """A file of that name is refused."""
    async with site.worker():
        await site.ready()
        target = site.directory / "backup.db"
        target.write_text("mine")
        told = await asyncio.to_thread(commands.run, "ems-worker", "backup", str(target), env=site.settings)
    assert told.code == 2
    assert target.read_text() == "mine"
