"""kill -9 of any process at any time, and network faults of every kind: in the end all work is done correctly.

`EMS_CHAOS_SEED` determines what happens when. Without it, each run draws a seed and prints it.
"""

import asyncio
import os
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import invariants, oracle, proxy, stage, wait, whole

FAULT_SECONDS = 20.0
# After the last fault: half a minute until the broker redelivers what a dead worker had fetched, and then the work.
BOUND_SECONDS = 75.0
SLOTS = 20
FAILURES = ("*-p0000?3-r000-a1:infrastructure", "*-p00000?-r001-a*:simulation")
EXPECTED = invariants.Expected(oracle.Failures.parse(FAILURES), window=SLOTS)


class Chaos:
    """Faults drawn from a seed, one after another."""

    def __init__(self, theatre: stage.Stage, rng: random.Random) -> None:
        self._stage = theatre
        self._rng = rng
        self._published = 0

    async def cause_faults(self, seconds: float) -> None:
        """Causes faults for this long; afterwards all processes run and all links work."""
        faults: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self._kill_worker),
            (2, self._kill_oracle),
            (2, self._kill_broker),
            (3, self._cut),
            (3, self._slow_down),
            (2, self._one_way),
            (4, self._publish),
        ]
        weights, actions = zip(*faults, strict=True)
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await self._publish()
        while loop.time() < until:
            [action] = self._rng.choices(actions, weights)
            await action()
            await wait.let_pass(self._rng.uniform(0.0, 0.8))

    async def _publish(self) -> None:
        """Publishes a plan: a new one, one that was published before, or another one with the same id."""
        again = self._published > 1 and self._rng.random() < 0.3
        number = self._rng.randrange(self._published) if again else self._published
        self._published += not again
        contradicting = again and self._rng.random() < 0.5
        await self._stage.publish(plan(f"chaos-{number}", description="another" if contradicting else "the plan"))

    async def _kill_worker(self) -> None:
        await self._stage.worker.kill()
        self._stage.check_now(EXPECTED)
        await wait.let_pass(self._rng.choice((0.0, 0.0, 1.0)))
        self._stage.worker.start()

    async def _kill_oracle(self) -> None:
        await self._stage.oracle.kill()
        await wait.let_pass(self._rng.choice((0.0, 0.5)))
        await self._stage.oracle.restart()

    async def _kill_broker(self) -> None:
        await self._stage.broker.kill()
        await wait.let_pass(self._rng.choice((0.0, 0.5)))
        await self._stage.broker.start()

    def _link(self) -> proxy.Proxy:
        return self._rng.choice((self._stage.to_broker, self._stage.to_orchestrator))

    async def _cut(self) -> None:
        link = self._link()
        self._rng.choice((link.cut, link.up.cut, link.down.cut))()

    async def _slow_down(self) -> None:
        link = self._link()
        way = self._rng.choice((link.up, link.down))
        if self._rng.random() < 0.5:
            way.stall()
        else:
            way.delay(self._rng.uniform(0.05, 0.3))
        await wait.let_pass(self._rng.uniform(0.2, 2.5))
        link.heal()

    async def _one_way(self) -> None:
        """Loses what is sent in one direction, then cuts the connection."""
        link = self._link()
        self._rng.choice((link.up, link.down)).drop()
        await wait.let_pass(self._rng.uniform(0.2, 2.0))
        link.heal()
        link.cut()


def plan(experiment_id: str, **more: Any) -> dict[str, Any]:
    return whole.plan(
        experiment_id, 40, 2, limits={"max_attempts": 2, "max_failed": 20, "max_concurrent": SLOTS - 5}, **more
    )


@pytest.mark.long
@pytest.mark.timeout(180)
async def test_everything_ends_correctly_after_random_faults(tmp_path: Path) -> None:
    """The rules for every moment hold at each death of the worker, and all rules within a time after the last fault."""
    seed = int(os.environ.get("EMS_CHAOS_SEED") or random.randrange(2**32))
    print(f"EMS_CHAOS_SEED={seed}")
    flags = ["--slots", str(SLOTS), "--delay", "0.2", *(flag for pattern in FAILURES for flag in ("--fail", pattern))]
    async with stage.Stage(tmp_path, *flags, proxied=True, EMS_RPC_DEADLINE_SECONDS="2") as theatre:
        theatre.worker.start()
        await Chaos(theatre, random.Random(seed)).cause_faults(FAULT_SECONDS)
        await theatre.worker.ready()
        await theatre.ended(BOUND_SECONDS)
        await theatre.stop()
        evidence = await theatre.check(EXPECTED)
        assert len(evidence.runs) > 80


async def begun(theatre: stage.Stage, runs: int) -> None:
    await wait.until(lambda: len(theatre.oracle.accepted()) > runs, timeout=30, what=f"{runs} starts")


@pytest.mark.long
async def test_a_shutdown_under_full_load_loses_nothing(tmp_path: Path) -> None:
    """After SIGTERM the worker exits with code 0 within ten seconds, and the next worker continues."""
    jobs = 2000
    async with stage.Stage(tmp_path, "--slots", "200", "--delay", "0.05") as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("load", jobs))
        for part in (200, 900):
            await begun(theatre, part)
            await theatre.stop()
            theatre.check_now()
            assert len(theatre.oracle.accepted()) < jobs
            theatre.worker.start()
        await theatre.ended(60)
        await theatre.stop()
        await theatre.check(invariants.Expected(window=200))
