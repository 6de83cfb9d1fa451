"""PAUSE and RESUME: open runs of experiments that are paused `now` are suspended, if the orchestrator can do it."""

import json
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from ems_worker import ticks
from ems_worker.core import ids
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Control
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest, Orchestrator
from ems_worker.service.control_calls import ControlCalls
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey

log = structlog.get_logger()

_TICK_SECONDS = 0.5
# After an answer that doesn't settle a PAUSE or a RESUME, it is sent again after this time.
_RESEND_SECONDS = 2.0
# A run that the orchestrator didn't pause is tried again after this time, or after its next event.
_REFUSED_SECONDS = 60.0
# Refusals: nothing was changed by them, and the same command would be refused again at once.
_REFUSALS = frozenset(
    {"UNIMPLEMENTED", "FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT", "PERMISSION_DENIED", "UNAUTHENTICATED"}
)
# Answers after which a run isn't suspended any more, as far as the orchestrator knows. A run that has ended, or that
# the orchestrator doesn't know, must not stand still for ever: its limit and reconciliation find out what became of it.
_NOT_SUSPENDED = frozenset({"OK", "NOT_FOUND", "FAILED_PRECONDITION", "UNIMPLEMENTED"})
# How many changes of an experiment are searched for a PAUSE: each life of a worker sends the RESUME that follows it.
_RECENT_CHANGES = 100
# Open runs that the orchestrator has.
_THERE = frozenset({RunState.SUBMITTED, RunState.RUNNING})


@dataclass(frozen=True, slots=True)
class _Refused:
    """A run that the orchestrator didn't pause: when, and when the run had been heard of before (monotonic seconds)."""

    code: str
    since: float
    heard: float | None


@dataclass(frozen=True, slots=True)
class _Unsettled:
    """A run whose last PAUSE or RESUME was answered with this code, which settles nothing, at that monotonic time."""

    code: str
    since: float


class Suspension:
    """Checks the open runs twice a second. Which runs are suspended is in the manifest, and known after a restart."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        orchestrator: Orchestrator,
        clock: Clock,
        on_refused: Callable[[int], None],
    ) -> None:
        """`on_refused` receives the key of an experiment of which the orchestrator didn't pause a run."""
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._clock = clock
        self._on_refused = on_refused
        self._calls = ControlCalls()
        self._refused: dict[RunKey, _Refused] = {}
        self._unsettled: dict[RunKey, _Unsettled] = {}
        # Runs that aren't recorded as suspended, although the orchestrator may have paused them.
        self._may_be_paused: set[RunKey] = set()

    async def run(self) -> None:
        """Checks at regular intervals, half as often while no run is open; without end."""
        try:
            while True:
                await self.check()
                await ticks.wait(_TICK_SECONDS if self._ledger.open else 2 * _TICK_SECONDS)
        finally:
            self._calls.cancel()

    async def recover(self) -> None:
        """Notes the runs that an earlier worker may have paused without recording it.

        It may have died between the answer and the commit, and the pause may be over: such a run would stand still for
        ever.
        """
        open_runs = self._ledger.open_runs()
        paused = {key[0] for key, live, _ in open_runs if live.record.pause_now}
        for key in {key[0] for key, _, _ in open_runs} - paused:
            changes = await self._manifest.latest_changes(key, _RECENT_CHANGES)
            if any(change.verb == Verb.PAUSE and json.loads(change.request).get("now") for change in changes):
                paused.add(key)
        self._may_be_paused.update(key for key, _, run in open_runs if key[0] in paused and not run.suspended)

    async def check(self) -> None:
        """Sends PAUSE and RESUME once to every run that needs it."""
        self._calls.collect()
        now = self._clock.monotonic()
        to_pause: list[RunKey] = []
        to_resume: list[RunKey] = []
        still_open: set[RunKey] = set()
        for key, live, run in self._ledger.open_runs():
            still_open.add(key)
            if run.state not in _THERE or run.to_be_stopped or not self._is_due(key, now):
                continue
            if not live.record.pause_now:
                if run.suspended or key in self._may_be_paused:
                    to_resume.append(key)
            elif not run.suspended and not self._is_refused(key):
                to_pause.append(key)
        self._forget_all_but(still_open)
        await self._calls.send([*to_pause, *to_resume], self._control, _TICK_SECONDS)

    def is_done(self, key: RunKey, run: Run) -> bool:
        """Whether a pause is done with a run: it is suspended, was refused, is being stopped or has ended."""
        return run.suspended or run.to_be_stopped or run.ended or self._is_refused(key)

    def reason(self, live: Live) -> str | None:
        """How many runs go on in an experiment that is paused now, or stand still after it, for people.

        None if each run is as it should be.
        """
        pausing = live.record.pause_now
        refused = [refused.code for key, refused in self._refused.items() if key[0] == live.key]
        if pausing and refused:
            why = "can't pause runs" if "UNIMPLEMENTED" in refused else "didn't pause all runs"
            return f"the orchestrator {why}: {len(refused):,} {'goes' if len(refused) == 1 else 'go'} on"
        unsettled = [unsettled.code for key, unsettled in self._unsettled.items() if key[0] == live.key]
        if not unsettled:
            return None
        runs = "1 run" if len(unsettled) == 1 else f"{len(unsettled):,} runs"
        return f"the orchestrator didn't {'pause' if pausing else 'resume'} {runs} yet: {unsettled[-1]}"

    async def _control(self, key: RunKey) -> None:
        """Sends what the run needs now: it may have waited for its turn."""
        live, run = self._ledger.get(key[0]), self._ledger.run(key)
        if live is None or run is None or run.state not in _THERE or run.to_be_stopped:
            return
        name = ids.simulation_id(live.experiment_id, *key[1:])
        if live.record.pause_now:
            if not run.suspended:
                await self._pause(live, key, name)
        elif run.suspended or key in self._may_be_paused:
            await self._resume(key, name)

    async def _pause(self, live: Live, key: RunKey, name: str) -> None:
        self._may_be_paused.add(key)
        heard = self._ledger.last_heard(key)
        answer = await self._orchestrator.control(name, Control.PAUSE)
        now = self._clock.monotonic()
        log.info("run.pause_sent", simulation_id=name, code=answer.code, paused=answer.paused)
        if answer.paused:
            crash.point("suspend.paused")
            await self._ledger.suspend([key], True)
            self._settle(key)
        elif answer.code == "OK" or answer.code in _REFUSALS:
            # OK alone: the run is queued, and may start. Its next event shows that it has.
            self._settle(key)
            self._refused[key] = _Refused(answer.code, now, heard)
            self._on_refused(live.key)
        else:
            self._unsettled[key] = _Unsettled(answer.code, now)

    async def _resume(self, key: RunKey, name: str) -> None:
        answer = await self._orchestrator.control(name, Control.RESUME)
        log.info("run.resume_sent", simulation_id=name, code=answer.code)
        if answer.paused or answer.code not in _NOT_SUSPENDED:
            self._unsettled[key] = _Unsettled(answer.code, self._clock.monotonic())
            return
        crash.point("suspend.resumed")
        await self._ledger.suspend([key], False)
        self._settle(key)

    def _settle(self, key: RunKey) -> None:
        self._unsettled.pop(key, None)
        self._refused.pop(key, None)
        self._may_be_paused.discard(key)

    def _is_due(self, key: RunKey, now: float) -> bool:
        unsettled = self._unsettled.get(key)
        return not self._calls.under_way(key) and (unsettled is None or now - unsettled.since >= _RESEND_SECONDS)

    def _is_refused(self, key: RunKey) -> bool:
        """Whether the orchestrator didn't pause this run lately, and nothing was heard of the run since."""
        refused = self._refused.get(key)
        if refused is None:
            return False
        recent = self._clock.monotonic() - refused.since < _REFUSED_SECONDS
        return recent and self._ledger.last_heard(key) == refused.heard

    def _forget_all_but(self, still_open: set[RunKey]) -> None:
        """Drops what is known about runs that have ended, and refusals of pauses that are over."""
        paused = {live.key for live in self._ledger.experiments() if live.record.pause_now}
        self._refused = {
            key: refused for key, refused in self._refused.items() if key in still_open and key[0] in paused
        }
        self._unsettled = {key: unsettled for key, unsettled in self._unsettled.items() if key in still_open}
        self._may_be_paused &= still_open
