"""The manifest's file: who may open it, which files are refused, what survives a crash, and which files remain."""

import asyncio
import itertools
import os
import signal
import sqlite3
import stat
import sys
import threading
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.records import DueRuns
from tests.support import manifests, wait

ROOT = Path(__file__).resolve().parents[2]


def _query(path: Path, text: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(text).fetchall()
    finally:
        connection.close()


def _modes(directory: Path) -> dict[str, int]:
    """The files of a directory and their modes."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


def _note(acknowledged: dict[int, int], line: bytes) -> None:
    number, count = line.split()
    acknowledged[int(number)] = int(count)


async def test_a_manifest_that_was_closed_can_be_opened_again(tmp_path: Path) -> None:
    """A missing directory is created, and special characters in the path are taken literally."""
    path = tmp_path / "new" / "a?b#c %41.db"
    async with Manifest.open(path) as manifest:
        record = await manifests.running(manifest)
    async with Manifest.open(path) as manifest:
        assert await manifest.experiment("reef") == record


async def test_every_manifest_has_an_identity_that_its_backups_share(tmp_path: Path) -> None:
    """The identity marks the broker's consumers as those of this manifest."""
    async with Manifest.open(tmp_path / "one.db") as one, Manifest.open(tmp_path / "other.db") as other:
        identity = await one.identity()
        assert await other.identity() != identity
        await one.backup(tmp_path / "backup.db")
    for path in (tmp_path / "one.db", tmp_path / "backup.db"):
        async with Manifest.open(path) as again:
            assert await again.identity() == identity


async def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    """Database, log, lock and backup have mode 0600, because plans may be confidential."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        await manifests.running(manifest)
        await manifest.backup(tmp_path / "copy.db")
        modes = _modes(tmp_path)
    assert {"manifest.db", "manifest.db-wal", "manifest.db-shm", "manifest.db.lock", "copy.db"} == set(modes)
    assert set(modes.values()) == {0o600}


async def test_a_second_worker_is_refused(tmp_path: Path) -> None:
    """The error names the process that holds the lock, which is free again once the manifest is closed."""
    path = tmp_path / "manifest.db"
    async with Manifest.open(path):
        with pytest.raises(errors.ManifestUnusable, match=rf"another worker \(process {os.getpid()}\)"):
            async with Manifest.open(path):
                pytest.fail("two workers had it")
    async with Manifest.open(path):
        pass


async def test_closing_ends_all_threads_and_later_calls_are_refused(tmp_path: Path) -> None:
    """The thread of an open connection would keep the interpreter from exiting."""
    before = set(threading.enumerate())
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        ours = set(threading.enumerate()) - before
        assert ours
        last = asyncio.create_task(manifest.remember("last", "word"))
        await asyncio.sleep(0)
    await last
    await wait.until(lambda: not any(thread.is_alive() for thread in ours), what="the threads to end")
    await manifest.close()
    for call in (manifest.remember("a", "b"), manifest.remembered("a"), manifest.tally(1)):
        with pytest.raises(errors.ManifestUnusable, match="closed"):
            await call
    assert _query(manifest.path, "SELECT value FROM remembered WHERE name = 'last'") == [("word",)]


async def test_a_close_that_is_cancelled_is_completed(tmp_path: Path) -> None:
    """Every thread ends and the lock is released, whenever the cancellation comes."""
    path = tmp_path / "manifest.db"
    before = set(threading.enumerate())

    async def use(ready: asyncio.Event) -> None:
        async with Manifest.open(path) as manifest:
            ready.set()
            await manifests.running(manifest, manifests.spec(points=2000))
            await asyncio.Event().wait()

    for patience in range(12):
        ready = asyncio.Event()
        task = asyncio.create_task(use(ready))
        await ready.wait()
        task.cancel()
        for _ in range(patience):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    await wait.until(lambda: not set(threading.enumerate()) - before, what="the threads to end")
    async with Manifest.open(path):
        pass


async def test_an_error_in_the_block_is_raised(tmp_path: Path) -> None:
    """Closing the manifest doesn't replace the error."""
    with pytest.raises(ZeroDivisionError):
        async with Manifest.open(tmp_path / "manifest.db"):
            raise ZeroDivisionError


async def test_a_backup_of_a_manifest_in_use_is_complete(tmp_path: Path) -> None:
    """It can be opened as a manifest of its own, and a backup that can't be written raises an error."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        record = await manifests.running(manifest, manifests.spec(points=300))
        copies = manifest.backup(tmp_path / "copy.db"), manifest.remember("while", "copying")
        await asyncio.gather(*copies)
        with pytest.raises(errors.ManifestUnusable, match="could not be copied"):
            await manifest.backup(tmp_path / "missing" / "copy.db")
        async with Manifest.open(tmp_path / "copy.db") as copy:
            assert await copy.experiment("reef") == record
            assert await copy.due_counts([record.key], 0, 1000) == {record.key: DueRuns(600, 0)}


_WRITER = """
import asyncio, sys
from pathlib import Path
from ems_worker.adapters.manifest import Manifest

async def main(path):
    async with Manifest.open(Path(path)) as manifest:
        async def write(number):
            count = int(await manifest.remembered(f"count {number}") or 0)
            while True:
                count += 1
                await manifest.remember(f"count {number}", str(count))
                print(number, count, flush=True)
        await asyncio.gather(*(write(number) for number in range(8)))

asyncio.run(main(sys.argv[1]))
"""


@pytest.mark.parametrize("kills", [2, pytest.param(12, marks=pytest.mark.long)])
async def test_a_killed_worker_loses_nothing_that_it_was_told_is_written(tmp_path: Path, kills: int) -> None:
    """kill -9 in mid-write, again and again: every acknowledged write is there and the file is whole."""
    path = tmp_path / "manifest.db"
    acknowledged = dict.fromkeys(range(8), 0)
    for lines in itertools.islice(itertools.cycle([40, 111, 307]), kills):
        writer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _WRITER, str(path), stdout=asyncio.subprocess.PIPE, env={"PYTHONPATH": str(ROOT)}
        )
        assert writer.stdout is not None
        for _ in range(lines):
            _note(acknowledged, await writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        for line in (await writer.stdout.read()).splitlines(keepends=True):
            if line.endswith(b"\n"):
                _note(acknowledged, line)
        await writer.wait()
        async with Manifest.open(path) as manifest:
            for number, count in acknowledged.items():
                assert int(await manifest.remembered(f"count {number}") or 0) >= count
        assert _query(path, "PRAGMA integrity_check") == [("ok",)]
    assert min(acknowledged.values()) > 0


@pytest.mark.parametrize("name", ["manifest.db", "manifest.db-wal"])
@pytest.mark.parametrize("replaced", [False, True])
async def test_a_missing_or_replaced_file_is_noticed(tmp_path: Path, name: str, replaced: bool) -> None:
    """The worker could continue, but everything it records would be lost when it ends."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:

        def lost() -> str | None:
            return manifest.file_problem

        await manifests.running(manifest)
        assert lost() is None
        file = tmp_path / name
        file.rename(tmp_path / "aside")
        if replaced:
            file.write_bytes(b"")
        words = lost()
        assert words is not None
        assert str(file) in words
        assert ("replaced" if replaced else "deleted") in words
        assert "Remedy" in words
        file.unlink(missing_ok=True)
        (tmp_path / "aside").rename(file)
        assert lost() is None
