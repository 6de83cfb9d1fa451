"""Ends of jobs are published from memory exactly as they would be from the manifest."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.live import Live, RunKey
from tests.support.desk import Desk, plan

COMPLETE = Signal(RunEvent.COMPLETE, metrics={"population": 1.0}, host="n1")
LOSE = Signal(RunEvent.LOSE, ErrorKind.LOST, "silent")
# What may be heard of a run, in any order.
SIGNALS = (
    COMPLETE,
    LOSE,
    Signal(RunEvent.START, started_ms=5),
    Signal(RunEvent.FAIL, ErrorKind.SIMULATION, "no fish"),
    Signal(RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, "no disk"),
    Signal(RunEvent.MEASURE, metrics={"age": 3.0}),
)
LIMITS: dict[str, Any] = {"limits": {"max_attempts": 3, "max_failed": "100%"}, "keep_open": True}
POINTS = 6


async def stored(desk: Desk, live: Live, limit: int = 10_000) -> list[Run]:
    """The ends of jobs that are to be published next, from the manifest."""
    return [row.run for row in await desk.manifest.results(live.key, live.record.published_seq, limit)]


async def claims_what_is_stored(desk: Desk, live: Live) -> None:
    """Jobs that are due are made from few columns if nothing is known of them."""
    due = [one for one, _ in await desk.manifest.due(live.key, desk.clock.now_ms(), 1000)]
    jobs = await desk.manifest.jobs([(live.key, *one.key) for one in due])
    assert due == [jobs[live.key, *one.key] for one in due]


async def something_happens(desk: Desk, live: Live, chance: random.Random) -> None:
    """Runs are started, something is heard of some, jobs are retried, excluded or included, or news are published."""
    match chance.randrange(8):
        case 0 | 1:
            await desk.launch(live, chance.randint(1, 4))
        case 2 | 3 | 4:
            await desk.ledger.hear(_heard(await desk.rows("reef"), live, chance))
        case 5:
            verb = chance.choice(["retry", "exclude", "include"])
            await desk.steer(verb, where=f"food == {chance.randrange(POINTS)}")
            await desk.services.executor.finish(live)
        case 6:
            await desk.reporter.report(live)
        case _:
            desk.clock.seconds += 60


def _heard(rows: Sequence[Any], live: Live, chance: random.Random) -> list[tuple[RunKey, Signal]]:
    """Signals for some of the runs that were sent, some of them for the same run."""
    sent = [row.run for row in rows if row.run.submitted_ms is not None]
    return [
        ((live.key, one.point, one.replicate, one.attempt), chance.choice(SIGNALS))
        for one in (chance.choice(sent) for _ in range(chance.randint(1, 5)) if sent)
    ]


@pytest.mark.parametrize("remembered", [3, 10_000])
@pytest.mark.parametrize("seed", range(12))
async def test_remembered_ends_are_those_of_the_manifest(tmp_path: Path, seed: int, remembered: int) -> None:
    """Whatever happens to jobs before their ends are published, and also if only some are remembered."""
    chance, from_memory = random.Random(seed), 0
    with patch.object(lives, "MAX_ENDS", remembered):
        async with Desk.open(tmp_path) as desk:
            live = await desk.begin(plan(points=POINTS, replicates=2, **LIMITS))
            for _ in range(60):
                await something_happens(desk, live, chance)
                limit = chance.randint(1, 8)
                ends = live.ends_after(live.record.published_seq, limit)
                if ends is not None:
                    assert ends == await stored(desk, live, limit)
                    from_memory += bool(ends)
                await claims_what_is_stored(desk, live)
    assert from_memory > 0


@pytest.mark.parametrize("seed", range(4))
async def test_the_same_is_published_from_memory_as_from_the_manifest(tmp_path: Path, seed: int) -> None:
    """All documents and message ids are equal, in their order."""
    published = []
    for remembered in (0, 10_000):
        with patch.object(lives, "MAX_ENDS", remembered):
            chance = random.Random(seed)
            async with Desk.open(tmp_path / str(remembered)) as desk:
                live = await desk.begin(plan(points=POINTS, replicates=2, **LIMITS))
                for _ in range(150):
                    await something_happens(desk, live, chance)
                await desk.reporter.report(live)
                published.append(desk.broker.published)
    assert published[0] == published[1]
    assert len([subject for subject, *_ in published[0] if ".result." in subject]) > POINTS


async def test_remembered_ends_are_published_without_a_query_for_them(tmp_path: Path) -> None:
    """The manifest is asked for them only if the worker forgot some."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        names = await desk.launch(live)
        with patch.object(desk.manifest, "results", wraps=desk.manifest.results) as results:
            await desk.complete(names[:2], [1, 2])
            await desk.report("reef")
            assert results.call_count == 0
            with patch.object(lives, "MAX_ENDS", 1):
                await desk.complete(names[2:], [3, 4])
                await desk.report("reef")
            assert results.call_count > 0
        assert [document["seq"] for document in desk.broker.of("result")] == [1, 2, 3, 4]


async def test_ends_of_an_earlier_worker_are_read(tmp_path: Path) -> None:
    """They were recorded and not published, and some more end meanwhile."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        names = await desk.launch(live)
        await desk.complete(names[:2], [1, 2])
    async with Desk.open(tmp_path) as desk:
        [live] = desk.ledger.experiments()
        await desk.complete(names[2:3], [3])
        assert live.ends_after(live.record.published_seq, 10) is None
        await desk.report("reef")
        await desk.complete(names[3:], [4])
        ends = live.ends_after(live.record.published_seq, 10)
        assert ends == await stored(desk, live)
        assert ends
        await desk.report("reef")
        assert [document["seq"] for document in desk.broker.of("result")] == [1, 2, 3, 4]


async def test_published_ends_are_forgotten(tmp_path: Path) -> None:
    """Memory has only those that are still to be published."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4, keep_open=True))
        await desk.complete(await desk.launch(live), [1, 2, 3, 4])
        assert len(live.ends) == 4
        await desk.report("reef")
        assert live.ends_after(live.record.published_seq, 10) == []
        assert live.ends == {}


async def test_ends_are_published_in_their_order(tmp_path: Path) -> None:
    """It isn't the order in which their runs began to change."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        await desk.launch(live)
        first, second = (live.key, 0, 0, 1), (live.key, 1, 0, 1)
        await desk.ledger.hear([(first, Signal(RunEvent.START)), (second, COMPLETE), (first, COMPLETE)])
        assert live.ends_after(0, 10) == await stored(desk, live)
        await desk.report("reef")
        assert [(document["point"], document["seq"]) for document in desk.broker.of("result")] == [(1, 1), (0, 2)]


async def test_a_job_that_ends_twice_at_once_is_published_once(tmp_path: Path) -> None:
    """Only its last end has a result in the manifest."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2, limits={"max_attempts": 1}))
        await desk.launch(live)
        key = (live.key, 0, 0, 1)
        await desk.ledger.hear([(key, LOSE), (key, COMPLETE), ((live.key, 1, 0, 1), COMPLETE)])
        await desk.report("reef")
        assert [document["seq"] for document in desk.broker.of("result")] == [2, 3]
