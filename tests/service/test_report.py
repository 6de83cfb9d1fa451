"""Results and statuses are published from the manifest, by cursor and revision, in order, whatever fails in between."""

import asyncio
import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service import report
from ems_worker.service.ledger.live import Live
from tests.support import wait
from tests.support.desk import Broker, Clock, Desk, background, plan


async def finish(desk: Desk, names: list[str], values: list[float]) -> None:
    for name, value in zip(names, values, strict=True):
        await desk.hear("completed", name, metrics={"population": value})


async def test_results_are_published_before_the_terminal_status(tmp_path: Path) -> None:
    """Publishing follows the order of acknowledgements, so a terminal status never counts unpublished results."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        names = await desk.launch(live)
        order: list[str] = []
        publish, latest = desk.broker.publish, desk.broker.publish_latest

        async def note(items: Any, traceparent: str | None = None) -> None:
            await publish(items)
            order.extend("result" for subject, *_ in items if ".result." in subject)

        async def note_latest(subject: str, data: bytes, revision: int) -> bool:
            order.append(desk.broker.statuses[-1]["state"] if desk.broker.statuses else "status")
            return await latest(subject, data, revision)

        with patch.object(desk.broker, "publish", note), patch.object(desk.broker, "publish_latest", note_latest):
            await finish(desk, names, [1, 2, 3])
            await desk.report("reef")
        assert order[:3] == ["result"] * 3
        assert desk.broker.statuses[-1]["state"] == "completed"
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.published_seq, record.published_revision) == (record.ended_seq, record.revision)
        assert desk.files == ["reef"]


async def test_writing_the_file_of_a_large_experiment_blocks_no_reports(tmp_path: Path) -> None:
    """The end is published once the file exists; until then reports return at once, and the file is written once."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)
        written, write = asyncio.Event(), desk.reporter.write_manifest
        assert write is not None

        async def slowly(one: Live) -> None:
            await written.wait()
            await write(one)

        with patch.object(report, "_LARGE_JOBS", 0), patch.object(desk.reporter, "write_manifest", slowly):
            await finish(desk, names, [1])
            await desk.reporter.report(live)
            await desk.reporter.report(live)
            assert not desk.broker.statuses
            written.set()
            await wait.until(lambda: desk.files, what="the file")
            await desk.report("reef")
        assert desk.files == ["reef"]
        assert desk.broker.statuses[-1]["state"] == "completed"


async def test_an_error_in_writing_the_file_of_a_large_experiment_is_raised(tmp_path: Path) -> None:
    """An unforeseen error ends the worker, as with a small experiment, instead of being retried silently."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)

        async def fail(_: Live) -> None:
            raise ArithmeticError("unforeseen")

        with patch.object(report, "_LARGE_JOBS", 0), patch.object(desk.reporter, "write_manifest", fail):
            await finish(desk, names, [1])
            with pytest.raises(ArithmeticError, match="unforeseen"):
                async with asyncio.timeout(5):
                    await desk.reporter.run()
        await desk.report("reef")
        assert desk.broker.statuses[-1]["state"] == "completed"


async def test_a_result_describes_its_job(tmp_path: Path) -> None:
    """It does so by the current attempt."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1, labels={"who": "me"}))
        names = await desk.launch(live)
        await finish(desk, names, [7])
        await desk.report("reef")
        [result] = desk.broker.of("result")
        assert result["schema"] == "ems.result.v1"
        assert (result["simulation_id"], result["state"]) == (names[0], "completed")
        assert (result["params"], result["labels"]) == ({"food": 0}, {"who": "me"})
        assert (result["metrics"], result["job_revision"], result["seq"]) == ({"population": 7.0}, 1, 1)


async def test_a_point_is_published_when_all_its_replicates_have_ended(tmp_path: Path) -> None:
    """It has their counts and aggregates."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2))
        names = await desk.launch(live)
        await finish(desk, names[:3], [2, 4, 9])
        await desk.report("reef")
        [point] = desk.broker.of("point")
        assert (point["point"], point["counts"]["completed"], point["ended"]) == (0, 2, True)
        assert (point["metrics"]["population"]["mean"], point["metrics"]["population"]["n"]) == (3.0, 2)
        await finish(desk, names[3:], [11])
        await desk.report("reef")
        assert [one["point"] for one in desk.broker.of("point")] == [0, 1]


async def test_the_replicates_of_a_point_are_read_once_it_is_complete(tmp_path: Path) -> None:
    """They are not read for each end, since a point may have a million replicates."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=3))
        names = await desk.launch(live)
        with patch.object(desk.manifest, "points", wraps=desk.manifest.points) as points:
            for number, name in enumerate(names):
                await desk.hear("completed", name, metrics={"population": 1.0})
                await desk.report("reef")
                assert points.call_count == (number + 1) // 3
        assert [one["point"] for one in desk.broker.of("point")] == [0, 1]


@pytest.mark.parametrize(("goal", "best"), [("maximize", 2), ("minimize", 0)])
async def test_the_best_point_has_the_best_mean(tmp_path: Path, goal: str, best: int) -> None:
    """A worker that was restarted finds the same point."""
    tracked = [{"name": "population", "goal": goal}]
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, metrics_to_track=tracked))
        names = await desk.launch(live)
        await finish(desk, names[:3], [1, 5, 9])
        assert (await desk.report("reef"))["best"]["point"] == best
    async with Desk.open(tmp_path) as desk:
        again = desk.ledger.live("reef")
        assert again is not None
        assert again.best is not None
        assert again.best.point.point == best


async def test_a_worse_late_result_replaces_the_best_point(tmp_path: Path) -> None:
    """Another point is looked up in the manifest."""
    limits: dict[str, Any] = {"limits": {"max_attempts": 1, "max_failed": 4}}
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, replicates=2, **limits))
        names = await desk.launch(live)
        await finish(desk, names[:1], [10])
        await desk.ledger.hear([((live.key, 0, 1, 1), Signal(RunEvent.LOSE, ErrorKind.LOST))])
        await finish(desk, names[2:], [6, 6])
        assert (await desk.report("reef"))["best"]["point"] == 0
        await finish(desk, names[1:2], [-10])
        assert (await desk.report("reef"))["best"]["point"] == 1


async def test_after_a_crash_before_the_cursor_the_same_results_are_repeated(tmp_path: Path) -> None:
    """They have the same message ids, by which the broker recognises them."""
    sent: list[list[tuple[str, dict[str, Any], str]]] = []
    for crash in (True, False):
        async with Desk.open(tmp_path) as desk:
            if crash:
                live = await desk.begin(plan(points=3))
                await finish(desk, await desk.launch(live), [1, 2, 3])

                async def die(*_: object) -> None:
                    raise ConnectionAbortedError

                with patch.object(desk.manifest, "results_published", die), pytest.raises(ConnectionAbortedError):
                    await desk.report("reef")
            else:
                desk.reporter.notify(desk.ledger.experiments()[0].key)
                status = await desk.report("reef")
                assert status["state"] == "completed"
            sent.append([one for one in desk.broker.published if "decision" not in one[0]])
    assert sent[0] == sent[1]
    assert len(sent[0]) == 6


async def test_after_a_crash_before_the_last_status_it_is_published(tmp_path: Path) -> None:
    """Its revision is higher than any that may be published already."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await finish(desk, await desk.launch(live), [1])

        async def die(*_: object) -> bool:
            raise ConnectionAbortedError

        with patch.object(desk.broker, "publish_latest", die), pytest.raises(ConnectionAbortedError):
            await desk.report("reef")
        composed = live.record.revision
    async with Desk.open(tmp_path) as desk:
        [live] = desk.ledger.experiments()
        desk.reporter.notify(live.key)
        status = await desk.report("reef")
        assert (status["state"], status["revision"]) == ("completed", composed + 1)
        assert desk.broker.of("result") == []
        assert desk.ledger.experiments() == []
    async with Desk.open(tmp_path) as desk:
        assert desk.ledger.experiments() == []


async def test_a_status_is_published_while_jobs_keep_ending(tmp_path: Path) -> None:
    """The reporter doesn't publish results without end."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=50))
        names = await desk.launch(live)
        publish = desk.broker.publish
        left = iter(names[1:])

        async def and_another_ends(items: Any, traceparent: str | None = None) -> None:
            await publish(items)
            if (name := next(left, None)) is not None:
                await desk.hear("completed", name)

        await finish(desk, names[:1], [1])
        with patch.object(desk.broker, "publish", and_another_ends):
            await desk.reporter.report(live)
        assert len(desk.broker.statuses) == 1
        assert desk.broker.statuses[0]["state"] == "running"


async def test_revisions_increase_and_only_news_are_published(tmp_path: Path) -> None:
    """A worker without news publishes nothing."""
    async with Desk.open(tmp_path) as desk:
        async with background(desk.reporter.run()):
            live = await desk.begin(plan(points=3))
            await wait.until(lambda: desk.broker.statuses)
            names = await desk.launch(live)
            await finish(desk, names, [1, 2, 3])
            await wait.until(lambda: desk.broker.statuses[-1]["state"] == "completed")
            await wait.until(lambda: not desk.ledger.experiments())
            revisions = [status["revision"] for status in desk.broker.statuses]
            assert revisions == sorted(set(revisions))
            desk.reporter.notify(live.key)
            await wait.until(lambda: not desk.reporter.has_news(live.key))
            assert len(desk.broker.statuses) == len(revisions)


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("gone"), errors.BrokerMisconfigured("too large")])
async def test_an_experiment_that_can_not_be_published_does_not_block_others(
    tmp_path: Path, error: errors.EmsError
) -> None:
    """Its documents are published once that is possible."""
    with patch("ems_worker.service.report._BROKER_PAUSE_SECONDS", 0.02):
        async with Desk.open(tmp_path) as desk:
            desk.broker.refuse = lambda subject: error if subject.endswith(".bad") else None
            async with background(desk.reporter.run()):
                await desk.begin(plan("bad", points=1))
                await desk.begin(plan("good", points=1))
                await wait.until(lambda: [one for one in desk.broker.statuses if one["experiment_id"] == "good"])
                desk.broker.refuse = lambda _: None
                await wait.until(lambda: [one for one in desk.broker.statuses if one["experiment_id"] == "bad"])


async def test_the_news_of_running_experiments_are_published_at_the_end(tmp_path: Path) -> None:
    """This happens at once, although the experiments haven't ended."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await finish(desk, (await desk.launch(live))[:1], [1])
        desk.reporter.notify(999)
        await desk.reporter.flush()
        assert desk.broker.statuses[-1]["counts"]["completed"] == 1
        assert len(desk.broker.of("result")) == 1


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("refused"), errors.BrokerMisconfigured("no stream")])
async def test_an_experiment_that_can_not_be_published_is_left_to_the_next_worker(
    tmp_path: Path, error: errors.EmsError
) -> None:
    """Other experiments are published, and the worker ends without an error."""
    async with Desk.open(tmp_path) as desk:
        for name in ("bad", "good"):
            await finish(desk, await desk.launch(await desk.begin(plan(name, points=1))), [1])
        desk.broker.refuse = lambda subject: error if subject.endswith("result.bad") else None
        await desk.reporter.flush()
        assert [one["state"] for one in desk.broker.statuses if one["experiment_id"] == "good"][-1] == "completed"
    async with Desk.open(tmp_path) as desk:
        desk.reporter.notify(desk.ledger.experiments()[0].key)
        assert (await desk.report("bad"))["state"] == "completed"


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("no rights"), errors.BrokerMisconfigured("no stream")])
async def test_statuses_are_published_although_results_can_not_be_stored(
    tmp_path: Path, error: errors.EmsError
) -> None:
    """Only the terminal status waits for the results, whose stream is missing or not permitted."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        names = await desk.launch(live)
        desk.broker.refuse = lambda subject: error if ".result." in subject else None
        for name, state in zip(names, ("running", "running"), strict=True):
            await desk.hear("completed", name, metrics={"population": 1.0})
            with pytest.raises(type(error)):
                await desk.report("reef")
            assert desk.broker.statuses[-1]["state"] == state
        assert desk.broker.statuses[-1]["counts"]["completed"] == 1
        desk.broker.refuse = lambda _: None
        desk.reporter.notify(live.key)
        assert (await desk.report("reef"))["counts"]["completed"] == 2
        assert len(desk.broker.of("result")) == 2


async def test_results_with_long_parameters_are_published_in_small_batches(tmp_path: Path) -> None:
    """So they don't fill the memory, and each is published once and in order."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=10, replicates=2))
        await finish(desk, await desk.launch(live), [1] * 20)
        with (
            patch.object(report, "_PAGE_BYTES", 1500),
            patch.object(desk.broker, "publish", wraps=desk.broker.publish) as publish,
        ):
            assert (await desk.report("reef"))["state"] == "completed"
        assert [one["seq"] for one in desk.broker.of("result")] == list(range(1, 21))
        assert [one["point"] for one in desk.broker.of("point")] == list(range(10))
        assert publish.call_count >= 7


@dataclass
class Told(Broker):
    """A broker with a status of an earlier worker whose revision is higher than this worker's manifest knows."""

    last: int = 300

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        if revision <= self.last:
            return False
        self.last = revision
        return await super().publish_latest(subject, data, revision)

    async def published_revision(self, subject: str) -> int | None:
        return self.last


async def test_an_end_gets_a_revision_above_those_of_a_lost_manifest(tmp_path: Path) -> None:
    """Readers drop lower revisions and would see the experiment running for ever."""
    async with Desk.open(tmp_path, broker=Told()) as desk:
        live = await desk.begin(plan(points=1))
        await finish(desk, await desk.launch(live), [1])
        status = await desk.report("reef")
        assert (status["state"], status["revision"]) == ("completed", 301)
        assert desk.ledger.live("reef") is None
        record = await desk.manifest.experiment("reef")
        assert record is not None
        assert (record.revision, record.published_revision) == (301, 301)


async def test_an_end_that_was_refused_is_published_after_a_crash(tmp_path: Path) -> None:
    """This holds whether or not the worker had learnt the published revision."""
    for ask_first in (False, True):
        directory = tmp_path / str(ask_first)
        directory.mkdir()
        async with Desk.open(directory, broker=Told()) as desk:
            live = await desk.begin(plan(points=1))
            await finish(desk, await desk.launch(live), [1])

            async def die(_: str, ask: bool = ask_first) -> int:
                if ask:
                    return 300
                raise ConnectionAbortedError

            with patch.object(desk.broker, "published_revision", die), contextlib.suppress(ConnectionAbortedError):
                await desk.reporter.report(live)
            assert desk.broker.statuses == []
        async with Desk.open(directory, broker=Told()) as desk:
            desk.reporter.notify(desk.ledger.experiments()[0].key)
            status = await desk.report("reef")
            assert (status["state"], status["revision"]) == ("completed", 301)


async def test_a_status_has_throughput_and_remaining_time(tmp_path: Path) -> None:
    """Both are those of the recent past."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        live = await desk.begin(plan(points=8))
        names = await desk.launch(live)
        await desk.report("reef")
        clock.seconds += 2
        await finish(desk, names[:4], [1, 2, 3, 4])
        status = await desk.report("reef")
        assert (status["throughput"], status["eta_seconds"], status["progress"]) == (2.0, 2.0, 0.5)
        clock.seconds += 1000
        desk.reporter.notify(live.key)
        assert (await desk.report("reef"))["throughput"] == 0.0
        for _ in range(70):
            desk.reporter.notify(live.key)
            await desk.report("reef")
        assert len(live.samples) <= 60


async def test_a_report_that_is_cancelled_by_the_end_is_completed_before_it(tmp_path: Path) -> None:
    """A status is in flight when the worker is stopped: `flush` publishes it and everything after it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)
        sending = asyncio.Event()

        async def never(*_: object) -> bool:
            sending.set()
            return await asyncio.Event().wait()

        with patch.object(desk.broker, "publish_latest", never):
            await finish(desk, names, [1])
            async with background(desk.reporter.run()):
                await sending.wait()
        assert desk.broker.statuses == []
        await desk.reporter.flush()
        assert desk.broker.statuses[-1]["state"] == "completed"
        assert desk.ledger.live("reef") is None
