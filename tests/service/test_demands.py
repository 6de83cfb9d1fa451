"""What experiments demand of the run window: the shares are those of schedule.allot, whatever has happened before."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker.core.lifecycle import job, schedule
from ems_worker.core.lifecycle.schedule import Demand
from ems_worker.core.records import DueRuns
from tests.support.desk import Clock, Desk, plan


async def allotted(desk: Desk, room: int) -> Mapping[int, int]:
    """What schedule.allot grants when the due runs of every experiment are counted."""
    experiments = sorted(desk.ledger.experiments(), key=lambda live: live.key)
    due = await desk.manifest.due_counts([live.key for live in experiments], desk.clock.now_ms(), 1000)
    return schedule.allot(
        [
            Demand(live.key, live.open, due[live.key].runs, live.limits.max_concurrent, live.limits.priority)
            for live in experiments
            if live.starts_runs
        ],
        room,
    )


async def fill(desk: Desk) -> None:
    """Fills the run window, and sends the commands."""
    async with asyncio.TaskGroup() as group:
        await desk.dispatcher.fill(group)


@pytest.mark.parametrize("seed", range(4))
async def test_each_experiment_starts_what_is_allotted_to_it(tmp_path: Path, seed: int) -> None:
    """Through ends, failures whose retries wait, pauses and changed limits."""
    chosen = random.Random(seed)
    async with Desk.open(tmp_path, clock := Clock(), run_window=12) as desk:
        for number in range(6):
            limits = {"priority": chosen.choice([0, 0, 1]), "max_concurrent": chosen.choice([1, 3, 20])}
            await desk.begin(plan(f"e{number}", points=chosen.randint(1, 12), limits=limits))
        for _ in range(25):
            assert desk.dispatcher.breaker_reason is None
            before = {live.key: live.open for live in desk.ledger.experiments()}
            expected = await allotted(desk, 12 - desk.ledger.open)
            await fill(desk)
            started = {live.key: live.open - before[live.key] for live in desk.ledger.experiments()}
            assert {key: runs for key, runs in started.items() if runs} == dict(expected)
            assert desk.ledger.open == sum(live.open for live in desk.ledger.experiments())
            for (_, *key), live, _ in desk.ledger.open_runs():
                ending = chosen.choice(["completed"] * 3 + ["failed"] + [None] * 2)
                if ending is not None:
                    more = {"error_kind": "infrastructure"} if ending == "failed" else {}
                    name = f"{live.experiment_id}-p{key[0]:06d}-r000-a{key[2]}"
                    await desk.hear(ending, name, **more)
            verb = chosen.choice(["pause", "resume", "set"])
            await desk.steer(verb, f"e{chosen.randrange(6)}", **({"max_concurrent": 2} if verb == "set" else {}))
            clock.seconds += chosen.choice([0, 1, 2 * job.FIRST_BACKOFF_SECONDS])


async def test_experiments_without_due_runs_are_looked_at_again_only_when_one_is_due(tmp_path: Path) -> None:
    """Until then they cost nothing, and their due times are known."""
    async with Desk.open(tmp_path, clock := Clock()) as desk:
        await desk.begin(plan(points=2, limits={"max_concurrent": 1}))
        await desk.begin(plan("other", points=1))
        await fill(desk)
        for name in list(desk.orchestrator.sent):
            await desk.hear("failed", name, error_kind="infrastructure")
        await fill(desk)
        assert await desk.dispatcher.demands.shares(10) == {}
        with patch.object(desk.manifest, "due_counts", None):
            assert await desk.dispatcher.demands.shares(10) == {}
        due_ms = desk.dispatcher.demands.next_due_ms(clock.now_ms())
        assert due_ms is not None
        clock.seconds += job.latest_due_ms(0) / 1000
        assert desk.dispatcher.demands.next_due_ms(clock.now_ms()) is None
        assert await desk.dispatcher.demands.shares(10) == await allotted(desk, 10) != {}


async def test_a_change_while_due_runs_are_counted_is_not_lost(tmp_path: Path) -> None:
    """The count may be from before it."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=3))
        demands, due_counts = desk.dispatcher.demands, desk.manifest.due_counts

        async def early(keys: Sequence[int], now_ms: int, limit: int) -> Mapping[int, DueRuns]:
            await due_counts(keys, now_ms, limit)
            if not changed:
                changed.append(live.key)
                demands.changed(live.key)
                return {live.key: DueRuns(0, None)}
            return await due_counts(keys, now_ms, limit)

        changed: list[int] = []
        with patch.object(desk.manifest, "due_counts", early):
            assert await demands.shares(10) == {live.key: 3}


async def test_due_runs_that_cannot_be_claimed_are_not_claimed_again_and_again(tmp_path: Path) -> None:
    """What is on disk may be behind: the commit under way is reported as a change. Others get the room meanwhile."""
    async with Desk.open(tmp_path, run_window=3) as desk:
        stuck = await desk.begin(plan("stuck", points=9, limits={"priority": 1}))
        other = await desk.begin(plan("other", points=9))
        claim = desk.ledger.claims.claim

        async def refused(shares: Mapping[int, int]) -> Any:
            return await claim({key: share for key, share in shares.items() if key != stuck.key})

        with patch.object(desk.ledger.claims, "claim", refused):
            await fill(desk)
        assert (stuck.open, other.open) == (0, 3)
        desk.dispatcher.changed(stuck.key)
        assert await desk.dispatcher.demands.shares(5) == {stuck.key: 5}


async def test_runs_of_several_experiments_are_claimed_in_one_commit(tmp_path: Path) -> None:
    """However many experiments there are, each has its share."""
    async with Desk.open(tmp_path, run_window=9) as desk:
        experiments = [await desk.begin(plan(f"e{number}", points=5)) for number in range(4)]
        with patch.object(desk.manifest, "save", wraps=desk.manifest.save) as save:
            async with asyncio.TaskGroup() as group:
                assert await desk.dispatcher.fill(group)
                assert save.call_count == 1
        assert [live.open for live in experiments] == [3, 2, 2, 2]
