"""Any sequence of deliveries, answers, losses and deaths: the rules hold after each step and at the end."""

import asyncio
import contextlib
import functools
import logging
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import orjson
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ems_worker import errors
from ems_worker.adapters.manifest import copies
from ems_worker.service import submit
from ems_worker.service.base import crash
from tests.support import invariants, onwards, oracle, requested, whole
from tests.support.evidence import Evidence
from tests.support.world import DiedError, Life, World

WINDOW = 5
# After this many rounds without faults everything must have ended.
MAX_ROUNDS = 12
FAILURES = oracle.Failures.parse(["*-p000000-r000-a1:infrastructure", "*-p000001-r001-a*:simulation"])
# In some steps the worker dies at one of the next named points.
DEATH = st.none() | st.none() | st.integers(1, 8)
CODES = st.lists(st.sampled_from(["LOST", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "INTERNAL"]), max_size=2)


def plan(number: int, **more: Any) -> dict[str, Any]:
    limits = {"max_attempts": 2, "max_failed": 2, "max_concurrent": 4}
    # The first settles before its end, the second starts on hold, and the third is kept open.
    if number == 0:
        more["settle"] = {"quorum": 4, "grace_seconds": 1, "stragglers": "cancel"}
    return whole.plan(f"story-{number}", 3, 2, limits=limits, hold=number == 1, keep_open=number == 2, **more)


class Story(RuleBasedStateMachine):
    """A world with one worker after another. The manifest is real, and is all that a dead worker leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(FAILURES)
        self.requests = 0
        self.restored = False
        self.before: Evidence | None = None
        self._runner = asyncio.Runner()
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(patch.object(crash, "point", self.world.point))
        self._patches.enter_context(patch.object(submit, "_MAX_PAUSE_SECONDS", 0.0))
        directory = self._patches.enter_context(tempfile.TemporaryDirectory())
        self.directory = Path(directory)
        self._log = structlog.get_config()
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
        self._runner.run(self._open())

    async def _open(self) -> None:
        """Starts a worker, which may die while it begins: then another one."""
        begun = False
        while not begun:
            self._context = Life.begun(self.world, self.directory, WINDOW)
            try:
                self.life = await self._context.__aenter__()
                begun = True
            except* DiedError:
                pass

    async def _restart(self) -> None:
        await self._context.__aexit__(None, None, None)
        await self._open()

    def _do(self, step: Callable[[], Awaitable[None]], death: int | None = None) -> None:
        """Carries out a step; if the worker dies in it, another one is started."""

        async def work() -> None:
            self.world.points_left = death
            try:
                await step()
            except* DiedError:
                await self._restart()
            finally:
                self.world.points_left = None
                self.world.hiccups.clear()

        self._runner.run(work())

    @rule(number=st.integers(0, 2), other=st.booleans())
    def publish(self, number: int, other: bool) -> None:
        """Publishes a plan: a new one, one that was published before, or another one with the same id."""
        self.world.publish(plan(number, description="another" if other else "the plan"))

    @rule(death=DEATH)
    def take_plans(self, death: int | None) -> None:
        self._do(self.life.take_plans, death)

    @rule(death=DEATH)
    def expand(self, death: int | None) -> None:
        self._do(self.life.expand, death)

    @rule(codes=CODES, death=DEATH)
    def dispatch(self, codes: list[str], death: int | None) -> None:
        self.world.clock.seconds += 2.0
        self.world.hiccups = codes
        self._do(self.life.dispatch, death)

    @precondition(lambda self: self.world.running)
    @rule(data=st.data(), ends=st.booleans())
    def a_run_moves_on(self, data: st.DataObject, ends: bool) -> None:
        """A run starts or ends, and its event waits on the bus."""
        name = data.draw(st.sampled_from(self.world.running))
        (self.world.end if ends else self.world.begin)(name)

    @precondition(lambda self: self.world.running)
    @rule()
    def all_runs_end(self) -> None:
        for name in self.world.running:
            self.world.end(name)

    @precondition(lambda self: self.world.events)
    @rule(data=st.data(), death=DEATH)
    def track(self, data: st.DataObject, death: int | None) -> None:
        """Delivers any events so far, in any order, any number of times."""
        events = data.draw(st.lists(st.sampled_from(self.world.events), min_size=1, max_size=12))
        self._do(lambda: self.life.track(events), death)

    @rule(death=DEATH)
    def retry_parked(self, death: int | None) -> None:
        self._do(self.life.retry_parked, death)

    @rule(death=DEATH)
    def reconcile(self, death: int | None) -> None:
        self._do(self.life.reconcile, death)

    @rule(death=DEATH)
    def report(self, death: int | None) -> None:
        self._do(self.life.report, death)

    @rule()
    def the_broker_refuses_results(self) -> None:
        """A report fails."""
        self.world.broker.refuse = lambda _: errors.BrokerUnavailable("away")
        with contextlib.suppress(errors.BrokerUnavailable):
            self._do(self.life.report)
        self.world.broker.refuse = lambda _: None

    @rule(rounds=st.integers(1, 4))
    def rounds_without_faults(self, rounds: int) -> None:
        """Everything happens in order, so that experiments end."""
        for _ in range(rounds):
            self._round()

    @initialize(number=st.integers(0, 2))
    def begin(self, number: int) -> None:
        """There is an experiment to steer."""
        self.world.publish(plan(number))
        self._do(self.life.take_plans)

    @rule(data=st.data(), request=requested.REQUESTS, again=st.booleans(), death=DEATH)
    def steer(self, data: st.DataObject, request: tuple[str, dict[str, Any]], again: bool, death: int | None) -> None:
        """Requests a change. `again`: whoever requests it repeats the request, as after an answer that got lost."""
        verb, options = request
        name = data.draw(
            st.sampled_from(sorted({orjson.loads(message.data)["experiment_id"] for message in self.world.plans}))
        )
        self.requests += 1
        given = {name: value for name, value in options.items() if value is not None}
        for turn in range(1 + again):
            self._do(
                lambda: self.life.steer(verb, name, request_id=f"request-{self.requests}", **given),
                None if turn else death,
            )

    @rule(stop=requested.STOPS, pause=requested.PAUSES, later=st.sampled_from([1.0, 40.0]), death=DEATH)
    def check(self, stop: str, pause: str, later: float, death: int | None) -> None:
        """Control commands are sent, and answered so; runs whose STOP was not confirmed in time are given up."""
        self.world.clock.seconds += later
        self.world.stop_code, self.world.pause_code = stop, pause
        self._do(self.life.check, death)
        self.world.stop_code = self.world.pause_code = "OK"

    @rule()
    def a_backup_is_taken(self) -> None:
        """It replaces the one before."""

        async def backup() -> None:
            desk = self.life.desk
            await desk.services.upkeep.check_streams(await desk.broker.streams())
            self._backup.unlink(missing_ok=True)
            await desk.manifest.backup(self._backup)

        self._do(backup)

    @precondition(lambda self: self._backup.exists())
    @rule(death=DEATH)
    def the_backup_is_restored(self, death: int | None) -> None:
        """The plans, events and changes since are applied again. The worker may die meanwhile."""

        async def restore() -> None:
            await self._context.__aexit__(None, None, None)
            try:
                await copies.restore(self.directory / "manifest.db", self._backup, f"at-{self.requests}")
            finally:
                await self._open()

        self.restored = self.world.astray = True
        self.before = None
        self._do(restore, death)

    @property
    def _backup(self) -> Path:
        return self.directory / "backup.db"

    @rule()
    def the_orchestrator_is_wiped(self) -> None:
        self.world.wipe()

    @rule()
    def the_worker_is_killed(self) -> None:
        self._runner.run(self._restart())

    @invariant()
    def the_rules_hold(self) -> None:
        now = self._evidence()
        if not self.restored:
            invariants.check(now, self._expected(), ended=False)
        if self.before is not None:
            onwards.check(self.before, now)
        self.before = now

    def _expected(self) -> invariants.Expected:
        return invariants.Expected(
            FAILURES,
            # The worker can't know of runs that it gave up, and that go on.
            window=None if self.world.astray else WINDOW,
            dead=None if self.world.astray else 0,
            retried=True,
            superseded=True,
            # Also without a request: stragglers are cancelled.
            steered=True,
            restored=self.restored,
        )

    def _evidence(self) -> Evidence:
        return self.world.evidence(self.directory / "manifest.db")

    def teardown(self) -> None:
        """Without further faults everything ends correctly and is published within a number of rounds."""
        try:
            for _ in range(MAX_ROUNDS):
                self._let_go()
                self._round()
                if not self.world.unacked and not self.life.desk.ledger.experiments():
                    break
            invariants.check(self._evidence(), self._expected())
        finally:
            self._runner.run(self._context.__aexit__(None, None, None))
            self._runner.close()
            self._patches.close()
            structlog.configure(**self._log)

    def _let_go(self) -> None:
        """Nobody pauses experiments any more, or keeps them open."""
        for live in self.life.desk.ledger.experiments():
            for verb, holds in (("resume", live.record.pauses), ("close", live.record.kept_open)):
                if holds:
                    self.requests += 1
                    name, request_id = live.experiment_id, f"request-{self.requests}"
                    self._do(functools.partial(self.life.steer, verb, name, request_id=request_id))

    def _round(self) -> None:
        for step in (self.life.take_plans, self.life.expand, self.life.dispatch):
            self._do(step)
        self.all_runs_end()
        for step in (self._track_all, self.life.check, self._track_all, self.life.reconcile, self.life.report):
            self._do(step)
        self.world.clock.seconds += 30.0

    async def _track_all(self) -> None:
        await self.life.track(self.world.events)
        await self.life.retry_parked()


TestStory = Story.TestCase
TestStory.settings = settings(
    max_examples=settings().max_examples // 4, stateful_step_count=25, suppress_health_check=list(HealthCheck)
)
