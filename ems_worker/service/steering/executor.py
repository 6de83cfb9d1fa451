"""Carries out recorded changes: those of an experiment one after another, in bounded steps, each a commit of its own.

A change is closed (`applied`) when nothing of it is in flight any more. Both its documents are published in any case.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any, NoReturn

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import steering
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Change
from ems_worker.service.base import crash
from ems_worker.service.base.locks import KeyedLocks
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger import judging
from ems_worker.service.ledger.judging import Jobs
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.steering import effects, withdrawal
from ems_worker.service.steering.extend import Extender
from ems_worker.service.steering.publisher import ChangePublisher

log = structlog.get_logger()

# Jobs that are judged in one commit: a few milliseconds on the event loop.
_JOBS = 50
# Jobs that never started are cancelled by the database, which takes some ten milliseconds for so many.
_BULK_JOBS = 2_000
# How long changes rest at least that wait for runs.
_PAUSE_SECONDS = 0.05
# The verbs that concern open runs. The others are applied as soon as all jobs are judged.
_STOPPING = frozenset({Verb.CANCEL, Verb.PAUSE, Verb.RESUME, Verb.EXTEND})


class Executor:
    """Steps through the changes of all experiments in memory, an experiment at a time."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        extender: Extender,
        paused: Callable[[RunKey, Run], bool],
    ) -> None:
        """`paused`: whether a PAUSE of an open run is over: the run is suspended, or goes on in any case."""
        self._ledger = ledger
        self._manifest = manifest
        self.publisher = ChangePublisher(manifest, broker)
        self._extender = extender
        self._paused = paused
        self._wake = asyncio.Event()
        self._woken: set[int] = set()
        # Steps of an experiment exclude each other.
        self._locks = KeyedLocks[int]()

    def wake(self, key: int | None = None) -> None:
        """Makes the executor look for changes to carry out or to close: those of one experiment, or all."""
        self._woken |= {live.key for live in self._ledger.experiments()} if key is None else {key}
        self._wake.set()

    async def run(self) -> None:
        """Carries out changes and publishes them, without end. A broker that is away delays only the latter."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_out())
                group.create_task(self.publisher.run())
        finally:
            self._extender.abandon()

    async def _carry_out(self) -> NoReturn:
        self.wake()
        while True:
            await self._wake.wait()
            self._wake.clear()
            woken, self._woken, busy = self._woken, set(), False
            for key in woken:
                live = self._ledger.get(key)
                if live is not None and live.changes and await self.step(live):
                    busy = True
                    self.wake(key)
                await asyncio.sleep(0)
            if not busy:
                # One look for many ends of runs: each goes through all open runs.
                await asyncio.sleep(_PAUSE_SECONDS)

    async def step(self, live: Live) -> bool:
        """Judges the next jobs of the experiment's first open change, and closes changes; whether there is more."""
        async with self._locks.hold(live.key):
            before = next((change for change in live.changes.values() if change.judged is not None), None)
            more, complete = False, True
            if before is not None:
                after = await self._judge(live, before)
                more, complete = after != before, after.judged is None
                crash.point("steering.judged")
            if complete or not more:
                # Once a change, not once a step: it takes longer than a step.
                await self._ledger.judging.reread(live)
            if live.changes:
                # Its last job may have been judged just now; or `close` lets it end.
                await self._ledger.records.conclude(live)
            for change in list(live.changes.values()):
                if change.judged is None and self._applied(live, change):
                    await self._ledger.records.change_applied(live, change)
                    crash.point("steering.applied")
                    self.publisher.news()
                    log.info(
                        "experiment.change_applied",
                        experiment_id=live.experiment_id,
                        verb=change.verb,
                        request_id=change.request_id,
                    )
        return more

    async def finish(self, live: Live) -> None:
        """Carries out all changes of an experiment as far as that is possible now."""
        while await self.step(live):
            pass

    async def preview(self, live: Live, draft: Change, in_time: Callable[[], bool]) -> Change:
        """The change as it would be once carried out, as far as that is found while it is `in_time`."""
        change = await self._preview(live, draft, in_time)
        reopens = any({*to} - {changes.EXCLUDED, "cancelled"} for to in change.counts.values())
        if not live.round_is_over or change.verb not in (Verb.RETRY, Verb.EXTEND) or not reopens:
            return change
        after = steering.next_round(live.record.standing)
        return replace(change, state=after.state, round=after.round)

    async def _preview(self, live: Live, draft: Change, in_time: Callable[[], bool]) -> Change:
        request: dict[str, Any] = json.loads(draft.request)
        verb = Verb(draft.verb)
        if draft.judged is None:
            return draft
        if verb is Verb.EXTEND:
            # Points are looked up as they are between two steps.
            async with self._locks.hold(live.key):
                return await self._extender.preview(live, draft, in_time)
        if verb is Verb.CANCEL and request.get("where") is None:
            return effects.cancelled_all(live, draft)
        decide, change = effects.of(live, draft), draft
        while change.judged is not None and in_time():
            jobs = await self._jobs(live, verb, request, change.judged)
            for job, point in jobs:
                if (effect := decide(job, point, draft.received_ms)) is not None:
                    change = judging.counted(change, effect.before, effect.after)
            if jobs:
                change = replace(change, judged=jobs[-1][0].key)
            elif live.expanded or not steering.follows(verb):
                change = replace(change, judged=None, changed=bool(change.counts))
            else:
                break
        return change

    async def _judge(self, live: Live, change: Change) -> Change:
        request: dict[str, Any] = json.loads(change.request)
        verb = Verb(change.verb)
        if verb is Verb.EXTEND:
            return await self._extender.step(live, change)
        if verb is Verb.CANCEL and request.get("where") is None:
            return await self._cancel_all(live, change, request)
        try:
            decide = effects.of(live, change)
        except errors.RequestRefused as error:
            # It was recorded by a worker that read the condition in another way.
            log.warning(
                "experiment.change_refused",
                experiment_id=live.experiment_id,
                verb=verb.value,
                request_id=change.request_id,
                reason=str(error),
            )
            refused = replace(change, judged=None, changed=bool(change.counts), refused=str(error))
            return await self._ledger.judging.carry(live, refused)
        return await self._ledger.judging.judge(
            live,
            change,
            decide,
            read=lambda after: self._jobs(live, verb, request, after),
            follows=steering.follows(verb),
            reopens=verb is Verb.RETRY,
        )

    async def _jobs(self, live: Live, verb: Verb, request: dict[str, Any], after: tuple[int, int]) -> Jobs:
        """The next jobs that a change has to judge."""
        if verb is Verb.RETRY and request.get("where") is None:
            # Without a condition, their points aren't looked at.
            return [(job, judging.NO_POINT) for job in await self._manifest.to_retry(live.key, after, _JOBS)]
        return await self._manifest.jobs_after(live.key, after, _JOBS)

    async def _cancel_all(self, live: Live, change: Change, request: dict[str, Any]) -> Change:
        """Cancels every job that hasn't ended: first the open runs, which are few, then those that never started."""
        ledger, reason = self._ledger.judging, effects.stop_reason(request)
        decide = effects.of(live, change)
        change, marked = await ledger.stop_open(live, change, decide, _JOBS)
        if marked == _JOBS:
            return change
        change, cancelled = await ledger.cancel_unstarted(live, change, reason, limit=_JOBS, bulk=_BULK_JOBS)
        if cancelled:
            return change
        return await ledger.cancel_rest(live, change, decide, _JOBS)

    def _applied(self, live: Live, change: Change) -> bool:
        """Whether nothing of a change is in flight any more, after it has judged its jobs."""
        if change.verb not in _STOPPING:
            return True
        open_runs = [(key, run) for key, owner, run in self._ledger.open_runs() if owner is live]
        match change.verb:
            case Verb.CANCEL:
                request: dict[str, Any] = json.loads(change.request)
                reason = effects.stop_reason(request)
                whole = request.get("where") is None and not request.get("stragglers")
                return not any(run.stop_reason is reason or run.drains for _, run in open_runs) and (
                    live.ended or not whole or live.record.round > change.round
                )
            case Verb.PAUSE:
                if any(run.state is RunState.SUBMITTING for _, run in open_runs):
                    return False
                return not live.record.pause_now or all(self._paused(key, run) for key, run in open_runs)
            case Verb.RESUME:
                # A later pause leaves runs as they are.
                return live.record.pause_now or not any(run.suspended for _, run in open_runs)
            case _:
                return not withdrawal.stopping(run for _, run in open_runs)

    def recorded(self) -> None:
        """A change was recorded just now: it is carried out and published as soon as possible."""
        self.publisher.news()
        self.wake()
