"""The only task that writes: it takes all requests that are waiting and commits them in one transaction.

A statement runs for hundreds of rows at once (`VALUES (...), (...), ...`) instead of for one after another
(`executemany`), because sqlite3 releases Python's global lock at every step of a statement. While the event loop is
busy, its thread then waits each time to get the lock back; a batch of 500 updates took seconds.
"""

import asyncio
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any

import aiosqlite
import structlog

from ems_worker import errors
from ems_worker.adapters.manifest.connecting import Connection
from ems_worker.adapters.manifest.queries import Query

log = structlog.get_logger()

# A transaction of this size takes no further requests, so that none waits for a long transaction.
MAX_ROWS = 10_000
# Rows per statement, as long as it has no more values than MAX_VALUES (SQLite's own limit is 32,766). There are few
# sizes, so that the connection's cache has all statements prepared.
CHUNKS = (256, 64, 16, 4, 1)
MAX_VALUES = 8192

# Errors of a full disk: nothing was written, and the request succeeds once there is room.
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR")
ROOM_PAUSE_SECONDS = 0.5

# Errors of SQLite, and what sqlite3 raises for a value that no column can hold.
_REFUSED = (aiosqlite.Error, OverflowError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Step:
    """A statement with its rows of values. A guarded one must change exactly one row of the table for each of them.

    Steps of later stages run after all others of their transaction, each statement once for rows that are equal. They
    derive rows of their own from what the other steps of all its requests have written.
    """

    query: Query
    rows: Sequence[tuple[Any, ...]]
    guarded: bool = True
    stage: int = 0


@dataclass(slots=True)
class Counters:
    """What was written, and how often each query of reads.sql ran.

    `on_commit` is called after each commit with its (seconds, requests, rows).
    """

    commits: int = 0
    requests: int = 0
    rows: int = 0
    failures: int = 0
    reads: Counter[str] = field(default_factory=Counter)
    on_commit: Callable[[float, int, int], None] | None = None


class _MismatchError(Exception):
    """A guarded statement changed a different number of rows than it should have."""


@dataclass(frozen=True, slots=True)
class _Request:
    steps: Sequence[Step]
    future: asyncio.Future[list[int]]

    @property
    def size(self) -> int:
        return sum(len(step.rows) for step in self.steps)


@dataclass(slots=True)
class _Merged:
    """Rows of one statement from several requests."""

    query: Query
    guarded: bool
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    keys: set[tuple[Any, ...]] = field(default_factory=set)


class Writer:
    """Owns the connection that writes. Requests are carried out in the order in which `submit` was called."""

    def __init__(self, connection: Connection, counters: Counters) -> None:
        self._connection = connection
        self._counters = counters
        self._queue: asyncio.Queue[_Request | None] = asyncio.Queue()
        self._closed = False
        # Why nothing can be written at the moment; None if all is well.
        self.problem: str | None = None
        self._task = asyncio.create_task(self._run(), name="manifest-writer")

    async def submit(self, *steps: Step) -> list[int]:
        """Runs the steps in one transaction. Returns how many rows each changed, once that is on disk.

        Cancelling the caller withdraws the request, unless its transaction has begun. While the disk is full, this
        request and all after it wait. Raises errors.ManifestConflict if a guard or a constraint refuses it,
        errors.ManifestUnusable if the database can't be written for another reason or was closed.
        """
        if self._closed or self._task.done():
            raise errors.ManifestUnusable("the manifest is closed")
        steps = tuple(step for step in steps if step.rows)
        if not steps:
            return []
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait(_Request(steps, future))
        return await future

    async def close(self) -> None:
        """Carries out the requests that are queued and takes no more. Harmless twice."""
        if not self._closed:
            self._closed = True
            self._queue.put_nowait(None)
        await self._task

    async def _run(self) -> None:
        try:
            while (first := await self._queue.get()) is not None:
                group = [first]
                size = first.size
                while size < MAX_ROWS and not self._queue.empty():
                    request = self._queue.get_nowait()
                    if request is None:
                        await self._commit(group)
                        return
                    group.append(request)
                    size += request.size
                await self._commit(group)
        finally:
            self._closed = True
            while not self._queue.empty():
                if (request := self._queue.get_nowait()) is not None and not request.future.done():
                    request.future.set_exception(errors.ManifestUnusable("the manifest is closed"))

    async def _commit(self, group: Sequence[_Request]) -> None:
        """One transaction for all requests; if that fails, one for each, so that only the faulty request fails."""
        group = [request for request in group if not request.future.done()]
        if not group:
            return
        started = time.perf_counter()
        try:
            counts = await self._retry_while_full(group)
        except (_MismatchError, *_REFUSED) as error:
            if len(group) > 1:
                for request in group:
                    await self._commit([request])
                return
            self._counters.failures += 1
            if not group[0].future.done():
                group[0].future.set_exception(_translated(error))
            return
        except BaseException:  # also a cancellation: the writer ends, and nobody may wait for it without end
            for request in group:
                request.future.cancel()
            raise
        rows = sum(request.size for request in group)
        self._counters.commits += 1
        self._counters.requests += len(group)
        self._counters.rows += rows
        if self._counters.on_commit is not None:
            self._counters.on_commit(time.perf_counter() - started, len(group), rows)
        for request, changed in zip(group, counts, strict=True):
            if not request.future.done():
                request.future.set_result(changed)

    async def _retry_while_full(self, group: Sequence[_Request]) -> list[list[int]]:
        """Retries while the disk is full: callers announce nothing until their commit is done."""
        while True:
            try:
                counts = await self._transact(group)
            except aiosqlite.OperationalError as error:
                if self._closed or not getattr(error, "sqlite_errorname", "").startswith(_NO_ROOM):
                    raise
                if self.problem is None:
                    log.error("manifest.no_room", reason=str(error))
                self.problem = f"the manifest can't be written: {error}"
                await asyncio.sleep(ROOM_PAUSE_SECONDS)
            else:
                if self.problem is not None:
                    log.info("manifest.room_again")
                self.problem = None
                return counts

    async def _transact(self, group: Sequence[_Request]) -> list[list[int]]:
        steps = [step for request in group for step in request.steps]
        statements = [*merge(step for step in steps if not step.stage), *_derived(steps)]
        counts = await self._connection.run(partial(_written, statements=[merged for merged, _ in statements]))
        changed: dict[int, int] = {}
        for (merged, parts), count in zip(statements, counts, strict=True):
            for part in parts:
                changed[id(part)] = len(part.rows) if merged.guarded else count
        return [[changed[id(step)] for step in request.steps] for request in group]


def _written(connection: sqlite3.Connection, statements: Sequence[_Merged]) -> list[int]:
    """Runs the statements in one transaction; returns how many rows each changed."""
    counts: list[int] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for merged in statements:
            count = _execute(connection, merged)
            if merged.guarded and count != len(merged.rows):
                raise _MismatchError(
                    f"{merged.query.name}: {count} of {len(merged.rows)} rows were as expected; nothing was written"
                )
            counts.append(count)
        connection.execute("COMMIT")
    except BaseException:  # no transaction may stay open
        # On a full disk SQLite may have rolled back by itself.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return counts


def _execute(connection: sqlite3.Connection, merged: _Merged) -> int:
    rows, width, done, changed = merged.rows, len(merged.rows[0]), 0, 0
    for size in CHUNKS:
        while len(rows) - done >= size and size * width <= MAX_VALUES:
            values = tuple(chain.from_iterable(rows[done : done + size]))
            changed += connection.execute(merged.query.for_rows(size, width), values).rowcount
            done += size
    return changed


def merge(steps: Iterable[Step]) -> list[tuple[_Merged, list[Step]]]:
    """Joins steps of the same statement where that changes nothing, past steps that are only about other rows.

    A statement must not have two rows of values for the same row of the table, because the second would not see what
    the first did. Rows of different tables are taken to be independent; where they are not, the commit fails and its
    requests are carried out one by one.
    """
    merged: list[tuple[_Merged, list[Step]]] = []
    for step in steps:
        key = step.query.key
        if not key or not step.guarded:
            merged.append((_Merged(step.query, step.guarded, list(step.rows)), [step]))
            continue
        keys = {row[:key] for row in step.rows}
        joined = None
        for candidate, parts in reversed(merged):
            if not candidate.keys or not candidate.keys.isdisjoint(keys):
                break
            if candidate.query is step.query:
                joined = candidate, parts
                break
        if joined is None:
            joined = _Merged(step.query, guarded=True), []
            merged.append(joined)
        joined[0].rows.extend(step.rows)
        joined[0].keys |= keys
        joined[1].append(step)
    return merged


def _derived(steps: Iterable[Step]) -> list[tuple[_Merged, list[Step]]]:
    """The steps of later stages, in the order of their stages, joined by statement."""
    later: dict[tuple[int, str], list[Step]] = {}
    for step in steps:
        if step.stage:
            later.setdefault((step.stage, step.query.name), []).append(step)
    return [
        (_Merged(parts[0].query, guarded=False, rows=list(dict.fromkeys(chain(*(part.rows for part in parts))))), parts)
        for _, parts in sorted(later.items())
    ]


def _translated(error: Exception) -> errors.EmsError:
    """The error as one of our own, with the original as its cause."""
    translated: errors.EmsError
    if isinstance(error, aiosqlite.Error) and not isinstance(error, aiosqlite.IntegrityError):
        translated = errors.ManifestUnusable(f"the manifest could not be written: {error}")
    else:
        translated = errors.ManifestConflict(str(error))
    translated.__cause__ = error
    return translated
