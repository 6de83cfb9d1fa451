"""The manifest as the services see it. What it reads is in reports.py; steering.py has the changes of experiments."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiosqlite

from ems_worker import errors
from ems_worker.adapters.manifest import experiments, incoming, migrate, opening, rows
from ems_worker.adapters.manifest.place import OpenFiles
from ems_worker.adapters.manifest.queries import WRITES
from ems_worker.adapters.manifest.reader import ReadConnection
from ems_worker.adapters.manifest.removals import Removals
from ems_worker.adapters.manifest.writer import Counters, Step, Writer
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import Experiment, NewExperiment, ParkedEvent, PointRecord, Submission

# Parked events have at most about twice as many bytes in all, because small ones are not added up.
MAX_PARKED_BYTES = 64 * 1024 * 1024


class Manifest(Removals):
    """Implements service.base.ports.Manifest. Create it by `open`; every method may be called from several tasks.

    A write is queued when its coroutine first runs, so writes are carried out in the order of the calls. It returns
    when it is on disk. Writes raise errors.ManifestConflict if they are refused, and all methods
    errors.ManifestUnusable if the database can't be used or is closed.
    """

    def __init__(
        self,
        path: Path,
        *,
        writer: Writer,
        hot: ReadConnection,
        reports: ReadConnection,
        counters: Counters,
        resources: AsyncExitStack,
        unchecked: bool = False,
    ) -> None:
        """`resources` is what `close` releases. `unchecked`: whether the file may be damaged, as far as is known."""
        super().__init__(hot, reports, writer)
        self.path = path
        self.counters = counters
        self._resources = resources
        self._files = OpenFiles(path)
        self._unchecked = unchecked
        self._closing: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path, *, migrations: Sequence[str] | None = None) -> "AsyncIterator[Manifest]":
        """The manifest in the file `path`, created if it is missing and closed at the end of the block.

        Raises errors.ManifestUnusable, with the remedy, if another worker has it or the file is damaged, of another
        program or of a newer version. `migrations` are those of this package unless a test passes its own.
        """
        steps = migrate.steps() if migrations is None else migrations
        async with AsyncExitStack() as stack:
            unchecked = opening.is_large(path)
            connection = await stack.enter_async_context(opening.opened(path, steps))
            unchecked = unchecked or opening.is_large(path)
            counters = Counters()
            hot = await ReadConnection.open(path, counters.reads)
            stack.push_async_callback(hot.close)
            reports = await ReadConnection.open(path, counters.reads)
            stack.push_async_callback(reports.close)
            writer = Writer(connection, counters)
            stack.push_async_callback(writer.close)
            manifest = cls(
                path,
                writer=writer,
                hot=hot,
                reports=reports,
                counters=counters,
                resources=stack.pop_all(),
                unchecked=unchecked,
            )
        try:
            yield manifest
        finally:
            await manifest.close()

    async def close(self) -> None:
        """Carries out the writes that are queued, then releases the file and its lock. Harmless twice.

        A caller that is cancelled waits for the end nevertheless: an open connection would keep the interpreter from
        exiting.
        """
        if self._closing is None:
            self._closing = asyncio.create_task(self._resources.aclose(), name="manifest-close")
        cancelled: asyncio.CancelledError | None = None
        while not self._closing.done():
            try:
                await asyncio.shield(self._closing)
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    @property
    def write_problem(self) -> str | None:
        return self._writer.problem

    @property
    def file_problem(self) -> str | None:
        return self._files.problem

    async def until_damaged(self) -> None:
        """Checks a file that was too large to be checked when it was opened, and waits without end if it is whole.

        Raises errors.ManifestUnusable, with the remedy, if it is damaged.
        """
        if self._unchecked:
            connection = await ReadConnection.open(self.path, self.counters.reads)
            try:
                found = await connection.value("damage")
            except errors.ManifestUnusable as error:
                raise opening.damaged(self.path, str(error)) from error
            finally:
                await connection.close()
            if found != "ok":
                raise opening.damaged(self.path, found)
            self._unchecked = False
        await asyncio.Event().wait()

    async def backup(self, target: Path) -> None:
        """Copies the manifest to a single file, while work continues.

        Raises errors.ManifestUnusable if the copy can't be written.
        """
        source = await ReadConnection.open(self.path, self.counters.reads)
        try:
            await migrate.backup(source.connection, target)
        except (OSError, aiosqlite.Error) as error:
            raise errors.ManifestUnusable(f"the manifest could not be copied to {target}: {error}") from error
        finally:
            await source.close()

    # Submissions.
    async def record_submission(self, submission: Submission, experiment: NewExperiment | None) -> None:
        steps = [Step(WRITES["insert_submission"], [incoming.new_submission(submission)])]
        if experiment is not None:
            steps.append(Step(WRITES["insert_experiment"], [experiments.new_experiment(experiment)]))
            steps.append(Step(WRITES["insert_plan"], [experiments.new_plan(experiment)]))
        await self._writer.submit(*steps)

    async def decisions_published(self, submissions: Sequence[Submission]) -> None:
        keys = {submission.identity for submission in submissions}
        await self._writer.submit(Step(WRITES["publish_submission"], list(keys)))

    async def drop_submissions(self, created_ns: int, first_seq: int, before_ms: int) -> int:
        (dropped,) = await self._writer.submit(
            Step(WRITES["drop_submissions"], [(created_ns, first_seq, before_ms)], guarded=False)
        )
        return dropped

    # Expansion.
    async def expand(
        self,
        key: int,
        points: Sequence[PointRecord],
        runs: Sequence[Run],
        expanded_points: int,
        *,
        begun: tuple[Experiment, Experiment] | None = None,
    ) -> None:
        await self._writer.submit(
            *(() if begun is None else (Step(WRITES["save_experiment"], [experiments.saved_experiment(*begun)]),)),
            Step(WRITES["advance_expansion"], [(key, expanded_points - len(points), expanded_points)]),
            Step(WRITES["insert_points"], [rows.new_point(key, point) for point in points]),
            Step(WRITES["insert_pending"], [rows.new_pending(key, run) for run in runs]),
        )

    # Reports.
    async def record_status(self, key: int, revision: int, document: bytes) -> None:
        await self._writer.submit(
            Step(WRITES["compose_revision"], [(key, revision)]),
            Step(WRITES["record_status"], [(key, document.decode())]),
        )

    async def status_confirmed(self, key: int) -> None:
        await self._writer.submit(Step(WRITES["confirm_status"], [(key,)], guarded=False))

    async def revision_published(self, key: int, revision: int) -> None:
        await self._writer.submit(Step(WRITES["publish_revision"], [(key, revision)]))

    async def results_published(self, key: int, seq: int) -> None:
        await self._writer.submit(Step(WRITES["publish_seq"], [(key, seq)]))

    # Events of unknown runs.
    async def park(self, events: Sequence[ParkedEvent], keep: int) -> int:
        if not events:
            return 0
        steps = [
            Step(WRITES["park"], [rows.new_parked(event) for event in events], guarded=False),
            Step(WRITES["drop_parked"], [(keep,)], guarded=False),
        ]
        # Adding up their sizes takes time, and small events can't exceed the limit.
        if any(len(event.data) * keep > MAX_PARKED_BYTES for event in events):
            steps.append(Step(WRITES["drop_parked_bytes"], [(MAX_PARKED_BYTES,)], guarded=False))
        _, *dropped = await self._writer.submit(*steps)
        return sum(dropped)

    async def unpark(self, events: Sequence[ParkedEvent]) -> None:
        keys = [(event.simulation_id, event.subject, event.seq) for event in events]
        await self._writer.submit(Step(WRITES["unpark"], keys, guarded=False))

    async def hasten(self, latest_ms: int) -> int:
        (hastened,) = await self._writer.submit(Step(WRITES["hasten"], [(latest_ms,)], guarded=False))
        return hastened

    async def expire_parked(self, before_ms: int) -> int:
        (dropped,) = await self._writer.submit(Step(WRITES["expire_parked"], [(before_ms,)], guarded=False))
        return dropped

    # What the worker remembers about the outside.
    async def remember(self, name: str, value: str) -> None:
        await self._writer.submit(Step(WRITES["remember"], [(name, value)]))

    async def forget(self, name: str) -> None:
        await self._writer.submit(Step(WRITES["forget"], [(name,)], guarded=False))
