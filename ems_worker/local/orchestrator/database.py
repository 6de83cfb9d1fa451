"""A SQLite database that is owned by one thread, which commits changes in batches.

Every method returns after its change is on disk (WAL, synchronous=FULL).
"""

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ems_worker.local import process
from ems_worker.settings import private

T = TypeVar("T")
_Change = Callable[[sqlite3.Connection], Any]
_Job = tuple[_Change, asyncio.Future[Any]]
_Answer = tuple[asyncio.Future[Any], Any, Exception | None]

_COMMIT_LIMIT = 512


class Database:
    """The thread and its queue. Use it from one event loop, between `open` and `close`."""

    def __init__(self, path: Path, *, schema: str, version: int, upgrades: Mapping[int, str]) -> None:
        """`schema` creates the tables that are missing; `version` is that of the schema.

        `upgrades` has, by version, the statement that makes a database one of the next version.
        """
        self._path = path
        self._schema = schema
        self._version = version
        self._upgrades = upgrades
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    async def open(self) -> None:
        """Opens or creates the database. Raises PlatformFailed if it is damaged, of another version, or unusable."""
        opened: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        # A daemon thread doesn't delay the exit of a process that fails elsewhere. Every reported change is committed.
        self._thread = threading.Thread(target=self._work, args=(opened,), name="store", daemon=True)
        self._thread.start()
        try:
            await opened
        except (sqlite3.Error, OSError) as failed:
            self._thread = None
            raise process.PlatformFailed(
                f"the orchestrator's database {self._path} can't be used: {failed}"
            ) from failed

    async def close(self) -> None:
        """Commits the pending changes and closes the database. Calling it again does nothing."""
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)
            self._thread = None

    async def do(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Runs the change in the thread of the database; returns after it is committed."""
        done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._jobs.put((change, done))
        # A cancelled caller must not cancel the future: the change may be committed already.
        result: T = await asyncio.shield(done)
        return result

    def _connect(self) -> sqlite3.Connection:
        private.database(self._path)
        db = sqlite3.connect(self._path, isolation_level=None)
        db.row_factory = sqlite3.Row
        found = db.execute("PRAGMA user_version").fetchone()[0]
        while found in self._upgrades:
            db.executescript(f"BEGIN; {self._upgrades[found]}; PRAGMA user_version = {found + 1}; COMMIT;")
            found += 1
        if found != self._version and db.execute("SELECT 1 FROM sqlite_schema").fetchone() is not None:
            raise sqlite3.DatabaseError(
                f"it is from another version (schema {found}, not {self._version}); to start without its runs, move "
                f"{self._path.parent} away"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.executescript(f"{self._schema} PRAGMA user_version = {self._version};")
        return db

    def _work(self, opened: asyncio.Future[Any]) -> None:
        loop = opened.get_loop()
        try:
            db = self._connect()
        except (sqlite3.Error, OSError) as failed:
            loop.call_soon_threadsafe(opened.set_exception, failed)
            return
        loop.call_soon_threadsafe(opened.set_result, None)
        running = True
        while running:
            batch = self._next_batch()
            running = batch[-1] is not None
            loop.call_soon_threadsafe(_resolve, _commit(db, [job for job in batch if job is not None]))
        db.close()

    def _next_batch(self) -> list[_Job | None]:
        """Waits for a job and takes all that are pending, up to a limit. None as the last one means to close."""
        batch = [self._jobs.get()]
        while batch[-1] is not None and len(batch) < _COMMIT_LIMIT:
            try:
                batch.append(self._jobs.get_nowait())
            except queue.Empty:
                break
        return batch


def _commit(db: sqlite3.Connection, batch: Sequence[_Job]) -> list[_Answer]:
    """Makes all changes in one transaction. A change that fails is undone alone; a failed commit fails all of them."""
    answers: list[_Answer] = []
    try:
        db.execute("BEGIN IMMEDIATE")
        for change, done in batch:
            db.execute("SAVEPOINT change")
            try:
                answers.append((done, change(db), None))
            except sqlite3.Error as failed:
                db.execute("ROLLBACK TO change")
                answers.append((done, None, failed))
            db.execute("RELEASE change")
        db.execute("COMMIT")
    except sqlite3.Error as failed:
        if db.in_transaction:
            db.execute("ROLLBACK")
        return [(done, None, failed) for _, done in batch]
    return answers


def _resolve(answers: list[_Answer]) -> None:
    for done, result, failed in answers:
        if done.cancelled():
            continue
        if failed is not None:
            done.set_exception(failed)
        else:
            done.set_result(result)
