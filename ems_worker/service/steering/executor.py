"""Carries out recorded changes: those of an experiment one after another, in bounded steps, each a commit of its own.

A change is closed (`applied`) when nothing of it is in flight any more. Both its documents are published in any case.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NoReturn

import structlog

from ems_worker import errors
from ems_worker.core.documents import changes, documents, subjects
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

log = structlog.get_logger()

# Jobs that are judged in one commit: a few milliseconds on the event loop.
_JOBS = 50
# Jobs that never started are cancelled by the database, which takes some ten milliseconds for so many.
_BULK_JOBS = 2_000
# How often the broker is tried again.
_PUBLISH_SECONDS = 1.0
# How long a reply waits at most for the broker alone.
_PUBLISH_PATIENCE_SECONDS = 0.5
# Bytes that are left for counts, which grow until the document is published for the last time.
_COUNTS_BYTES = 2048
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
        self._broker = broker
        self._extender = extender
        self._paused = paused
        self._wake = asyncio.Event()
        self._publishing = asyncio.Lock()
        # Steps of an experiment exclude each other.
        self._locks = KeyedLocks[int]()
        # Whether a change may have a document that isn't published, as may be after a start.
        self._unpublished = True
        # Set whenever there is something new to publish, or to publish once more.
        self._news = asyncio.Event()
        self._news.set()

    def wake(self) -> None:
        """Makes the executor look for changes to carry out or to close."""
        self._wake.set()

    async def run(self) -> None:
        """Carries out changes and publishes them, without end. A broker that is away delays only the latter."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._carry_out())
                group.create_task(self._keep_publishing())
        finally:
            self._extender.abandon()

    async def _carry_out(self) -> NoReturn:
        while True:
            self._wake.clear()
            busy = False
            for live in self._ledger.experiments():
                if live.changes:
                    busy |= await self.step(live)
                    await asyncio.sleep(0)
            if not busy:
                await self._wake.wait()

    async def _keep_publishing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            await self.publish()
            if self._unpublished:
                await asyncio.sleep(_PUBLISH_SECONDS)

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
                    self._note_unpublished()
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
        if not live.ended or change.verb not in (Verb.RETRY, Verb.EXTEND) or not reopens:
            return change
        after = steering.reopened(live.record.standing)
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
        decide, change = effects.of(live, verb, request), draft
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
        return await self._ledger.judging.judge(
            live,
            change,
            effects.of(live, verb, request),
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
        decide = effects.of(live, Verb.CANCEL, request)
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

    async def publish(self) -> None:
        """Publishes what is recorded of changes and isn't published yet. While the broker is away it is tried again."""
        if not self._unpublished:
            return
        async with self._publishing:
            self._unpublished, complete = False, False
            try:
                complete = await self._publish_all()
            finally:
                # Also after a cancellation, by which `published` stops waiting.
                if not complete:
                    self._note_unpublished()

    async def _publish_all(self) -> bool:
        """Whether the broker has taken everything. A document that it refuses, such as a large one, delays no other."""
        complete = True
        for change in await self._manifest.unpublished_changes():
            try:
                await self._publish(await self._manifest.experiment_id(change.experiment), change)
            except (errors.BrokerUnavailable, errors.BrokerMisconfigured) as error:
                complete = False
                log.warning("change.publish_delayed", reason=str(error))
                if isinstance(error, errors.BrokerUnavailable):
                    break
        return complete

    def recorded(self) -> None:
        """A change was recorded just now: it is published as soon as possible."""
        self._note_unpublished()
        self.wake()

    def _note_unpublished(self) -> None:
        self._unpublished = True
        self._news.set()

    async def published(self, patience: float) -> None:
        """Returns once a change that was recorded just now is published, or after `patience` seconds at most."""
        self.recorded()
        if patience <= 0:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(patience, _PUBLISH_PATIENCE_SECONDS)):
                await self.publish()

    def refuse_too_large(self, experiment_id: str, change: Change) -> None:
        """Raises errors.RequestRefused if the documents of a change, which have all of its request, are too large."""
        size, limit = len(documents.encode(changes.document(experiment_id, change))), self._broker.max_document_bytes
        if size > limit - _COUNTS_BYTES:
            message = f"the request is too long to be published: with it, a change has {size:,} bytes"
            remedy = "send less of it, for extend 'add', 'samples' or 'replicates', or raise the server's max_payload"
            raise errors.RequestRefused(f"{message}, and the NATS server takes {limit:,}; {remedy}")

    async def _publish(self, experiment_id: str, change: Change) -> None:
        """Publishes the document of the change as recorded, and, if it is closed, the last one.

        Message ids are those of the request, so that a repetition is one message within the broker's window.
        """
        digest = hashlib.sha256(change.request_id.encode()).hexdigest()[:24]
        items = []
        for number in range(change.published, 2 if change.applied_ms is not None else 1):
            shown = change if number else replace(change, applied_ms=None)
            document = documents.encode(changes.document(experiment_id, shown))
            items.append((f"{subjects.CHANGE}.{experiment_id}", document, f"{experiment_id}-{digest}-{number}"))
        crash.point("steering.publishing")
        await self._broker.publish(items)
        crash.point("steering.published")
        await self._manifest.change_published(change.number, change.published + len(items))
