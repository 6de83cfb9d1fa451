"""After a crash or an error of the broker, results and statuses are published in order and without gaps."""

import asyncio
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from tests.support import wait
from tests.support.desk import Desk, background, plan


def states(desk: Desk, experiment_id: str) -> list[str]:
    """The states in the experiment's published statuses."""
    return [status["state"] for status in desk.broker.statuses if status["experiment_id"] == experiment_id]


async def test_results_are_published_again_after_a_crash_before_their_cursor_is_saved(tmp_path: Path) -> None:
    """They have the same message ids, by which the broker drops the duplicates."""
    published: list[list[tuple[str, dict[str, Any], str]]] = []
    for crash in (True, False):
        async with Desk.open(tmp_path) as desk:
            if crash:
                live = await desk.begin(plan(points=3))
                await desk.complete(await desk.launch(live), [1, 2, 3])

                async def die(*_: object) -> None:
                    raise ConnectionAbortedError

                with patch.object(desk.manifest, "results_published", die), pytest.raises(ConnectionAbortedError):
                    await desk.report("reef")
            else:
                desk.reporter.notify(desk.ledger.experiments()[0].key)
                status = await desk.report("reef")
                assert status["state"] == "completed"
            published.append([item for item in desk.broker.published if ".result." in item[0] or ".point." in item[0]])
    assert published[0] == published[1]
    assert len(published[0]) == 6


async def test_a_terminal_status_is_published_after_a_crash_before_its_publication(tmp_path: Path) -> None:
    """Its revision is higher than any that may be published already."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.complete(await desk.launch(live), [1])

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


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("gone"), errors.BrokerMisconfigured("too large")])
async def test_an_experiment_that_cannot_be_published_does_not_block_others(
    tmp_path: Path, error: errors.EmsError
) -> None:
    """Its documents are published once the broker accepts them."""
    with patch("ems_worker.service.report._BROKER_PAUSE_SECONDS", 0.02):
        async with Desk.open(tmp_path) as desk:
            desk.broker.refuse = lambda subject: error if subject.endswith(".bad") else None
            async with background(desk.reporter.run()):
                await desk.begin(plan("bad", points=1))
                await desk.begin(plan("good", points=1))
                await wait.until(lambda: states(desk, "good"))
                desk.broker.refuse = lambda _: None
                await wait.until(lambda: states(desk, "bad"))


async def test_unpublished_changes_of_running_experiments_are_published_when_the_worker_stops(tmp_path: Path) -> None:
    """`flush` doesn't wait for the end of an experiment, and ignores unknown ones."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.complete((await desk.launch(live))[:1], [1])
        desk.reporter.notify(999)
        await desk.reporter.flush()
        assert desk.broker.statuses[-1]["counts"]["completed"] == 1
        assert len(desk.broker.of("result")) == 1


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("refused"), errors.BrokerMisconfigured("no stream")])
async def test_an_experiment_that_cannot_be_published_when_the_worker_stops_is_left_to_the_next_worker(
    tmp_path: Path, error: errors.EmsError
) -> None:
    """Other experiments are published, and `flush` returns without an error."""
    async with Desk.open(tmp_path) as desk:
        for name in ("bad", "good"):
            await desk.complete(await desk.launch(await desk.begin(plan(name, points=1))), [1])
        desk.broker.refuse = lambda subject: error if subject.endswith("result.bad") else None
        await desk.reporter.flush()
        assert states(desk, "good")[-1] == "completed"
    async with Desk.open(tmp_path) as desk:
        desk.reporter.notify(desk.ledger.experiments()[0].key)
        assert (await desk.report("bad"))["state"] == "completed"


@pytest.mark.parametrize("error", [errors.BrokerUnavailable("no rights"), errors.BrokerMisconfigured("no stream")])
async def test_statuses_are_published_even_if_results_cannot_be_stored(tmp_path: Path, error: errors.EmsError) -> None:
    """Only the terminal status waits for the results, whose stream is missing or forbidden."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        names = await desk.launch(live)
        desk.broker.refuse = lambda subject: error if ".result." in subject else None
        for name in names:
            await desk.hear("completed", name, metrics={"population": 1.0})
            with pytest.raises(type(error)):
                await desk.report("reef")
            assert desk.broker.statuses[-1]["state"] == "running"
        assert desk.broker.statuses[-1]["counts"]["completed"] == 1
        desk.broker.refuse = lambda _: None
        desk.reporter.notify(live.key)
        assert (await desk.report("reef"))["counts"]["completed"] == 2
        assert len(desk.broker.of("result")) == 2


async def test_a_report_that_is_cancelled_when_the_worker_stops_is_repeated(tmp_path: Path) -> None:
    """`flush` publishes the status that was in flight, and everything after it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        names = await desk.launch(live)
        sending = asyncio.Event()

        async def never(*_: object) -> bool:
            sending.set()
            return await asyncio.Event().wait()

        with patch.object(desk.broker, "publish_latest", never):
            await desk.complete(names, [1])
            async with background(desk.reporter.run()):
                await sending.wait()
        assert desk.broker.statuses == []
        await desk.reporter.flush()
        assert desk.broker.statuses[-1]["state"] == "completed"
        assert desk.ledger.live("reef") is None
