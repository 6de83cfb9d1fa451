"""A manifest that is restored from a backup catches up from the streams."""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import client, errors
from tests.support import commands
from tests.support import site as sites
from tests.support.site import Site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with sites.site(tmp_path, "--hold", "slow-*") as servers:
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
    """An experiment's jobs as the analysis layer reads them."""
    query = "SELECT simulation_id, seed, state, params, metrics FROM v_jobs WHERE experiment_id = ? ORDER BY 1"
    with site.database() as database:
        return [tuple(row) for row in database.execute(query, (name,))]


async def running(ems: client.EmsClient, name: str) -> None:
    """Submits an experiment of three runs that go on until they are stopped."""
    await submitted(ems, name, 3)
    async for status in ems.watch(name):
        if status["counts"]["submitted"] + status["counts"]["running"] == 3:
            return


async def test_a_restored_manifest_catches_up_with_the_streams(site: Site) -> None:
    """Plans, ends of runs and changes since the backup are applied again, and nothing waits for a person."""
    backup = str(site.directory / "backup.db")
    async with site.worker() as worker, client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "before", 20)
        await ems.wait("before")
        await running(ems, "slow-reef")
        await running(ems, "slow-fish")
        ended = await asyncio.to_thread(commands.run, "ems-worker", "backup", backup, env=site.settings)
        assert ended.code == 0, ended.err
        await submitted(ems, "after", 30)
        await ems.wait("after")
        cancelled = await ems.cancel("slow-reef", request_id="cancel-1", reason="a wrong reef", wait=True)
        extended = await ems.extend("before", add={"x": [20, 21]}, request_id="extend-1", wait=True)
        await ems.wait("before")
        refused = await asyncio.to_thread(commands.run, "ems-worker", "restore", backup, env=site.settings)
        assert refused.code == 6, "a running worker's manifest was replaced"
        expected = {name: jobs(site, name) for name in ("before", "after", "slow-reef")}
        assert [len(rows) for rows in expected.values()] == [22, 30, 3]
        await worker.stop(grace=15)
    restored = await asyncio.to_thread(commands.run, "ems-worker", "restore", backup, env=site.settings)
    assert restored.code == 0, restored.err
    assert "replaced-" in restored.err
    assert jobs(site, "after") == []
    async with site.worker(), client.EmsClient(site.nats.url) as ems:
        await site.ready()
        assert {name: jobs(site, name) for name in expected} == expected
        for name, state in (("before", "completed"), ("slow-reef", "cancelled"), ("slow-fish", "running")):
            assert (await ems.get(name))["state"] == state
        again = await ems.cancel("slow-reef", request_id="cancel-1", reason="a wrong reef", wait=True)
        assert (again["counts"], again["applied"]) == (cancelled["counts"], True)
        again = await ems.extend("before", add={"x": [20, 21]}, request_id="extend-1", wait=True)
        assert (again["added"], again["unchanged"]) == (extended["added"], extended["unchanged"]) == (2, 20)


@pytest.mark.long
async def test_an_older_copy_of_the_manifest_catches_up(site: Site) -> None:
    """A snapshot of the disk is recognized as outdated without `ems-worker restore`, and only once."""
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
        expected = {name: jobs(site, name) for name in ("before", "after")}
        await worker.stop(grace=15)
    shutil.rmtree(data)
    shutil.copytree(copy, data)
    assert jobs(site, "after") == []
    async with site.worker() as worker:
        await site.ready()
        assert {name: jobs(site, name) for name in expected} == expected
        await worker.stop(grace=15)
    async with site.worker():
        await site.ready()
        log = (site.directory / "worker.log").read_text()
        assert log.count("manifest.restored") == 1, "it was taken for a restored manifest again after it had caught up"


async def test_a_backup_is_restored_on_a_new_machine(site: Site) -> None:
    """The data directory is created if it is missing, but not for a damaged backup."""
    backup, new = site.directory / "backup.db", site.directory / "new" / "machine"
    env = site.settings | {"EMS_DATA_DIR": str(new)}
    async with site.worker(), client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "small", 2)
        await ems.wait("small")
        ended = await asyncio.to_thread(commands.run, "ems-worker", "backup", str(backup), env=site.settings)
        assert ended.code == 0, ended.err
    (site.directory / "broken.db").write_text("not a database")
    refused = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(site.directory / "broken.db"), env=env)
    assert refused.code == 6
    assert not new.parent.exists()
    restored = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(backup), env=env)
    assert restored.code == 0, restored.err
    assert (new / "manifest.db").exists()


async def test_a_damaged_backup_is_not_restored(site: Site) -> None:
    """The message names the backup, and the existing manifest is kept."""
    async with site.worker():
        await site.ready()
    broken = site.directory / "broken.db"
    broken.write_bytes(b"not a database, but long enough to be read as one" * 100)
    ended = await asyncio.to_thread(commands.run, "ems-worker", "restore", str(broken), env=site.settings)
    assert ended.code == 6
    assert "broken.db" in ended.err
    with site.database() as database:
        assert database.execute("SELECT count(*) FROM experiments").fetchone()[0] == 0


async def test_a_backup_does_not_overwrite_a_file(site: Site) -> None:
    """If the target exists, it is unchanged and the exit code is 2."""
    async with site.worker():
        await site.ready()
        target = site.directory / "backup.db"
        target.write_text("mine")
        ended = await asyncio.to_thread(commands.run, "ems-worker", "backup", str(target), env=site.settings)
    assert ended.code == 2
    assert target.read_text() == "mine"


async def test_a_removed_experiment_does_not_come_back_with_a_backup(site: Site) -> None:
    """Neither one that is in the backup nor one whose plan is delivered again after it; their ids stay taken."""
    backup = str(site.directory / "backup.db")
    async with site.worker() as worker, client.EmsClient(site.nats.url) as ems:
        await site.ready()
        await submitted(ems, "before", 5)
        await ems.wait("before")
        ended = await asyncio.to_thread(commands.run, "ems-worker", "backup", backup, env=site.settings)
        assert ended.code == 0, ended.err
        await submitted(ems, "after", 5)
        await ems.wait("after")
        removed = [await ems.remove(name, request_id=f"remove-{name}") for name in ("before", "after")]
        assert [document["changed"] for document in removed] == [True, True]
        await worker.stop(grace=15)
    restored = await asyncio.to_thread(commands.run, "ems-worker", "restore", backup, env=site.settings)
    assert restored.code == 0, restored.err
    async with site.worker(), client.EmsClient(site.nats.url) as ems:
        await site.ready()
        assert [status async for status in ems.experiments()] == []
        for name in ("before", "after"):
            with pytest.raises(errors.NotFound, match="was removed at"):
                await ems.get(name)
            # The repeated request has been carried out once.
            assert (await ems.remove(name, request_id=f"remove-{name}"))["changed"] is True
            ack = await ems.publish(plan(name, 7))
            decision = await ems.decision(ack.seq, timeout=20)
            assert [error["code"] for error in decision["errors"]] == ["removed_experiment"]
