"""The breaker: after most runs broke, new runs are started only to probe the cluster."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ems_worker.core.lifecycle import breaker
from tests.support import wait
from tests.support.desk import Clock, Desk, background, plan, quiet
from tests.support.dispatching import sent, working


async def test_no_run_is_started_for_a_while_after_most_runs_broke(tmp_path: Path) -> None:
    """After the pause one run probes, and when it completes the others are started."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=20) as desk:
        await desk.begin(plan(points=40, limits={"max_attempts": 1, "max_failed": "100%"}))
        await wait.until(lambda: len(desk.orchestrator.sent) == 20)
        await quiet(desk)
        for name in list(desk.orchestrator.sent):
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        await quiet(desk)
        before = len(desk.orchestrator.sent)
        for name in desk.orchestrator.sent[20:before]:
            await desk.hear("completed", name)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before
        clock.seconds += breaker.MAX_PAUSE_SECONDS
        desk.dispatcher.wake()
        await wait.until(lambda: len(desk.orchestrator.sent) == before + 1)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 1
        await desk.hear("completed", desk.orchestrator.sent[-1])
        assert not desk.dispatcher.breaker_reason
        await wait.until(lambda: len(desk.orchestrator.sent) == 40)


async def test_a_run_that_takes_a_day_does_not_keep_the_breaker_from_probing(tmp_path: Path) -> None:
    """It was open before the breaker opened, and its end doesn't close the breaker, because it is no probe."""
    async with working(tmp_path, clock=(clock := Clock()), run_window=12) as desk:
        await desk.begin(plan("long", points=2))
        await sent(desk, 2)
        for name in list(desk.orchestrator.sent):
            await desk.hear("started", name)
        await desk.begin(plan("short", points=40, limits={"max_attempts": 1, "max_failed": "100%"}))
        await sent(desk, 12)
        await quiet(desk)
        for name in desk.orchestrator.sent[2:]:
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        await quiet(desk)
        before = len(desk.orchestrator.sent)
        clock.seconds += breaker.MAX_PAUSE_SECONDS
        desk.dispatcher.wake()
        await sent(desk, before + 1)
        await desk.hear("completed", "long-p000000-r000-a1")
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 1
        assert desk.dispatcher.breaker_reason
        # A probe may take a day, too: another probe starts after a while.
        clock.seconds += breaker.MAX_PAUSE_SECONDS
        desk.dispatcher.wake()
        await sent(desk, before + 2)
        await quiet(desk)
        assert len(desk.orchestrator.sent) == before + 2
        await desk.hear("completed", desk.orchestrator.sent[before])
        assert not desk.dispatcher.breaker_reason
        await sent(desk, before + 3)


async def test_the_dispatcher_sleeps_when_the_breakers_pause_is_over_and_events_wait(tmp_path: Path) -> None:
    """It doesn't spin until the backlog is gone."""
    async with Desk.open(tmp_path) as desk:
        for name in await desk.launch(await desk.begin(plan(points=20))):
            await desk.hear("failed", name, error_kind="infrastructure")
        assert desk.dispatcher.breaker_reason
        desk.clock.seconds += breaker.MAX_PAUSE_SECONDS
        desk.dispatcher.set_behind(True)
        checks = 0
        next_due = desk.dispatcher.demands.next_due_ms

        def count(after_ms: int) -> int | None:
            nonlocal checks
            checks += 1
            return next_due(after_ms)

        with patch.object(desk.dispatcher.demands, "next_due_ms", count):
            async with background(desk.dispatcher.run()):
                await wait.until(lambda: checks)
                await quiet(desk)
        assert checks <= 2


async def test_a_run_that_ends_while_its_claim_is_committed_is_no_probe(tmp_path: Path) -> None:
    """Its end was reported before the breaker knew of the claim, so the breaker would never see it end."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=20, limits={"max_attempts": 1, "max_failed": "100%"}))
        for name in await desk.launch(live, 10):
            await desk.hear("failed", name, error_kind="infrastructure")
        desk.clock.seconds += breaker.MAX_PAUSE_SECONDS
        claim = desk.ledger.claims.claim

        async def overtaken(shares: Mapping[int, int]) -> Any:
            claimed = await claim(shares)
            for _, run, _ in claimed:
                await desk.hear("completed", f"reef-p{run.point:06d}-r000-a1")
            return claimed

        async with asyncio.TaskGroup() as group:
            with patch.object(desk.ledger.claims, "claim", overtaken):
                assert await desk.dispatcher.fill(group)
            assert desk.dispatcher.breaker_reason
            assert await desk.dispatcher.fill(group)
