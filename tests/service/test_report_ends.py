"""The end of an experiment is published after its results and its manifest file."""

import asyncio
import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.service import report
from ems_worker.service.ledger.live import Live
from tests.support import wait
from tests.support.desk import Broker, Desk, plan


async def test_results_are_published_before_the_terminal_status(tmp_path: Path) -> None:
    """The status follows the acknowledgement of the results, so it never counts unpublished results."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live)
        order: list[str] = []
        publish, publish_latest = desk.broker.publish, desk.broker.publish_latest

        async def record_results(items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
            await publish(items, traceparent)
            order.extend("result" for subject, *_ in items if ".result." in subject)

        async def record_status(subject: str, data: bytes, revision: int) -> bool:
            order.append(json.loads(data)["state"])
            return await publish_latest(subject, data, revision)

        with (
            patch.object(desk.broker, "publish", record_results),
            patch.object(desk.broker, "publish_latest", record_status),
        ):
            await desk.complete(names, [1, 2, 3])
            await desk.report("reef")
        assert order == ["result", "result", "result", "completed"]
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.published_seq, record.published_revision) == (record.ended_seq, record.revision)
        assert desk.files == ["reef"]


async def test_writing_the_file_of_a_large_experiment_blocks_no_reports(tmp_path: Path) -> None:
    """Reports return at once, the file is written once, and the terminal status follows when the file exists."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)
        may_write, write = asyncio.Event(), desk.reporter.write_manifest
        assert write is not None

        async def wait_and_write(ended: Live) -> None:
            await may_write.wait()
            await write(ended)

        with patch.object(report, "_LARGE_JOBS", 0), patch.object(desk.reporter, "write_manifest", wait_and_write):
            await desk.complete(names, [1])
            await desk.reporter.report(live)
            await desk.reporter.report(live)
            assert not desk.broker.statuses
            may_write.set()
            await wait.until(lambda: desk.files, what="the file")
            await desk.report("reef")
        assert desk.files == ["reef"]
        assert desk.broker.statuses[-1]["state"] == "completed"


async def test_a_manifest_file_that_is_being_written_is_abandoned_when_the_worker_ends(tmp_path: Path) -> None:
    """Writing it reads the manifest, which is closed next. The next worker writes it, and then publishes the end."""
    interrupted = asyncio.Event()

    async def never_ends(_: Live) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            interrupted.set()
            raise

    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])
        with patch.object(report, "_LARGE_JOBS", 0), patch.object(desk.reporter, "write_manifest", never_ends):
            await desk.reporter.report(live)
            await asyncio.sleep(0)
            await desk.reporter.flush()
        assert interrupted.is_set()
        assert not desk.broker.statuses


async def test_an_unexpected_error_in_writing_the_file_of_a_large_experiment_ends_the_reporter(tmp_path: Path) -> None:
    """It isn't retried silently, and the next report writes the file."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)

        async def fail(_: Live) -> None:
            raise ArithmeticError("unexpected")

        with patch.object(report, "_LARGE_JOBS", 0), patch.object(desk.reporter, "write_manifest", fail):
            await desk.complete(names, [1])
            with pytest.raises(ArithmeticError, match="unexpected"):
                async with asyncio.timeout(5):
                    await desk.reporter.run()
        await desk.report("reef")
        assert desk.broker.statuses[-1]["state"] == "completed"


@dataclass
class AheadBroker(Broker):
    """A broker with an earlier worker's status whose revision is higher than any in this worker's manifest."""

    last: int = 300

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        if revision <= self.last:
            return False
        self.last = revision
        return await super().publish_latest(subject, data, revision)

    async def published_revision(self, subject: str) -> int | None:
        return self.last


async def test_the_terminal_status_has_a_higher_revision_than_any_that_was_published(tmp_path: Path) -> None:
    """Readers ignore lower revisions and would never see the end. The manifest that had the higher ones was lost."""
    async with Desk.open(tmp_path, broker=AheadBroker()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])
        status = await desk.report("reef")
        assert (status["state"], status["revision"]) == ("completed", 301)
        assert desk.ledger.live("reef") is None
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.revision, record.published_revision) == (301, 301)


@pytest.mark.parametrize("learned", [False, True])
async def test_a_terminal_status_that_the_broker_refused_is_published_after_a_crash(
    tmp_path: Path, learned: bool
) -> None:
    """This holds whether or not the worker had learned the published revision."""
    async with Desk.open(tmp_path, broker=AheadBroker()) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])

        async def published_revision(_: str) -> int:
            if learned:
                return 300
            raise ConnectionAbortedError

        with (
            patch.object(desk.broker, "published_revision", published_revision),
            contextlib.suppress(ConnectionAbortedError),
        ):
            await desk.reporter.report(live)
        assert desk.broker.statuses == []
    async with Desk.open(tmp_path, broker=AheadBroker()) as desk:
        desk.reporter.notify(desk.ledger.experiments()[0].key)
        status = await desk.report("reef")
        assert (status["state"], status["revision"]) == ("completed", 301)


async def test_an_end_during_a_replay_is_published_although_the_worker_dies_before_its_report(tmp_path: Path) -> None:
    """The published status is ahead of the restored manifest, and nobody knows whether it tells of the end."""
    async with Desk.open(tmp_path, broker=AheadBroker()) as desk:
        live = await desk.begin(plan(points=1))
        # No result tells the next worker that something is left to publish.
        await desk.steer("cancel")
        await desk.ledger.records.catch_up_revision(live, 300)
    async with Desk.open(tmp_path, broker=AheadBroker()) as desk:
        [live] = desk.ledger.experiments()
        desk.reporter.notify(live.key)
        await desk.reporter.flush()
        assert [(status["state"], status["revision"]) for status in desk.broker.statuses] == [("cancelled", 301)]
        assert len(desk.broker.of("settled")) == 1
