"""Settles rounds: decides when enough jobs have ended, and publishes `ems.settled.v1` exactly once a round.

A round settles with its last job, or earlier by the `settle` of its plan. The document follows the results that it
counts and precedes the terminal status. That stragglers are cancelled is recorded before the document: a worker that
starts in between finds that record, and publishes the document.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass

import structlog
from msgspec.structs import replace

from ems_worker import ticks
from ems_worker.core.documents import changes, documents, subjects
from ems_worker.core.language import version
from ems_worker.core.lifecycle import settling
from ems_worker.core.lifecycle.settling import Cause, RoundJobs, Terms
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.records import Change
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()

# How often experiments that wait for stragglers are looked at, at least.
_LOOK_SECONDS = 1.0
# How often the time that an experiment has waited is recorded. A crash lengthens the wait by no more.
_RECORD_MS = 10_000
_REASON = "the round settled without them"


@dataclass(slots=True)
class _Wait:
    """How long a round has waited for stragglers at a monotonic time in seconds, and whether it was paused then."""

    round: int
    milliseconds: int | None
    at: float
    paused: bool


@dataclass(frozen=True, slots=True)
class _Settled:
    """A round that settles, as it was when that was decided. `stragglers`: None if they are those that `tally` has."""

    round: int
    cause: Cause
    tally: Tally
    ended_seq: int
    at_ms: int
    stragglers: int | None = None


class Settling:
    """Measures how long rounds wait for stragglers, and publishes those that settle."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        clock: Clock,
        notify: Callable[[int], None],
        on_change: Callable[[], None],
    ) -> None:
        """`notify` has an experiment reported whose grace is over. `on_change` follows each change that is recorded."""
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._clock = clock
        self._notify = notify
        self._on_change = on_change
        self._waits: dict[int, _Wait] = {}
        # By experiment: a round that settles and isn't published.
        self._due: dict[int, _Settled] = {}
        # Experiments and rounds for which this worker has looked for a record of an earlier worker.
        self._looked_up: set[tuple[int, int]] = set()
        # The time of a round begins to count, or stands still.
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Looks at experiments that wait for stragglers, without end."""
        while True:
            self._wake.clear()
            pause = await self.look()
            # Not asyncio.wait_for: it loses a cancellation that arrives together with the wake-up.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._wake.wait()

    async def look(self) -> float:
        """Has experiments reported whose rounds settle now; returns the seconds until the next look."""
        pause = ticks.until_next(_LOOK_SECONDS)
        for live in self._ledger.experiments():
            if live.ended or not _has_grace(live) or live.record.settled_round >= live.record.round:
                continue
            if self._cause(live) is not None:
                self._notify(live.key)
            elif (waited := self._waits[live.key].milliseconds) is not None and waited < _terms(live).grace_ms:
                pause = min(pause, (_terms(live).grace_ms - waited) / 1000)
            await self._record(live, _RECORD_MS)
        return pause

    async def record(self) -> None:
        """Records how long each experiment has waited for stragglers, before the worker ends."""
        for live in self._ledger.experiments():
            if not live.ended and _has_grace(live) and live.record.settled_round < live.record.round:
                self._cause(live)
                await self._record(live, 0)

    async def settle(self, live: Live) -> bool:
        """Publishes the document of each round that has settled; whether that is done.

        It isn't while results that the document counts are to be published. Raises errors.BrokerUnavailable and
        errors.BrokerMisconfigured.
        """
        while (number := live.record.settled_round + 1) <= live.record.round:
            due = self._due.get(live.key)
            if due is None or due.round != number:
                due = await self._decide(live, number)
                if due is None:
                    return True
                self._due[live.key] = due
            if live.record.published_seq < due.ended_seq:
                return False
            await self._cancel_stragglers(live, due)
            await self._publish(live, due)
            self._due.pop(live.key, None)
            self._waits.pop(live.key, None)
            self._looked_up.discard((live.key, number))
        return True

    async def _decide(self, live: Live, number: int) -> _Settled | None:
        """How the round with this number settles; None if it doesn't yet."""
        if number < live.record.round:
            # The experiment was reopened before the document of its last round was published.
            return self._decided(live, Cause.ENDED, number)
        if (earlier := await self._of_earlier_worker(live)) is not None:
            return earlier
        cause = self._cause(live)
        return None if cause is None else self._decided(live, cause, number)

    def _cause(self, live: Live) -> Cause | None:
        """Counts the time since the last look; whether the round settles now, and why."""
        record, now = live.record, self._clock.monotonic()
        paused = bool(record.pauses)
        wait = self._waits.get(live.key)
        if wait is None or wait.round != record.round:
            wait = self._waits[live.key] = _Wait(record.round, record.settling_ms, now, paused)
        elapsed_ms = int(1000 * (now - wait.at))
        of_round, terms = _of_round(live), _terms(live)
        waited = settling.waited(
            of_round, terms, wait.milliseconds, elapsed_ms=elapsed_ms, paused=paused or wait.paused
        )
        if (wait.milliseconds is None) != (waited is None) or wait.paused != paused:
            self._wake.set()
        # What is less than a millisecond counts next time.
        wait.milliseconds, wait.at, wait.paused = waited, wait.at + elapsed_ms / 1000, paused
        return settling.settles(of_round, terms, wait.milliseconds, paused=paused, judging=live.judging)

    def _decided(self, live: Live, cause: Cause, number: int, stragglers: int | None = None) -> _Settled:
        return _Settled(number, cause, live.recorded, live.recorded_seq, self._clock.now_ms(), stragglers)

    async def _record(self, live: Live, least_ms: int) -> None:
        """Records the time if it differs by so much from what is recorded, or has just begun to count."""
        waited, recorded = self._waits[live.key].milliseconds, live.record.settling_ms
        if waited != recorded and (waited is None or recorded is None or abs(waited - recorded) >= least_ms):
            await self._ledger.records.settling(live, waited)

    async def _of_earlier_worker(self, live: Live) -> _Settled | None:
        """The present round, if a worker before this one recorded that it settles and its stragglers are cancelled."""
        key = live.key, live.record.round
        if live.plan.settle.stragglers != "cancel" or live.judging or key in self._looked_up:
            return None
        self._looked_up.add(key)
        change = await self._manifest.change_from(_request_id(live), live.key)
        if change is None:
            return None
        stragglers = sum(sum(to.values()) for to in change.counts.values())
        return self._decided(live, Cause.QUORUM, live.record.round, stragglers)

    async def _cancel_stragglers(self, live: Live, due: _Settled) -> None:
        """Records the change that cancels the jobs which haven't ended, if the plan says so and it isn't done yet."""
        wanted = due.cause is Cause.QUORUM and due.stragglers is None and live.plan.settle.stragglers == "cancel"
        if not wanted or live.ended or due.round != live.record.round:
            return
        request_id = _request_id(live)
        if await self._manifest.change_from(request_id, live.key) is not None:
            return
        await self._ledger.records.change(live, cancellation(live, request_id, due.at_ms))
        crash.point("settle.stragglers")
        self._on_change()

    async def _publish(self, live: Live, due: _Settled) -> None:
        document = documents.settled(
            replace(live.record, round=due.round),
            due.tally,
            by_quorum=due.cause is Cause.QUORUM,
            ended_seq=due.ended_seq,
            now_ms=due.at_ms,
            best=live.best,
            excluded=sum(due.tally.excluded.values()),
        )
        if due.stragglers is not None:
            document["stragglers"] = due.stragglers
        subject = f"{subjects.SETTLED}.{live.experiment_id}"
        # A worker that died may have published it, longer ago than the broker remembers message ids. An experiment of
        # the same name in a manifest that was lost is another one.
        published = await self._broker.settled_round(live.experiment_id, live.record.spec.created_ms)
        if published is None or published < due.round:
            name = f"{live.experiment_id}-settled-{due.round}"
            await self._broker.publish([(subject, documents.encode(document), name)], live.record.spec.traceparent)
            crash.point("settle.published")
        await self._ledger.records.settled(live, due.round)
        crash.point("settle.recorded")
        log.info("experiment.settled", experiment_id=live.experiment_id, round=due.round, cause=due.cause.value)


def cancellation(live: Live, request_id: str, at_ms: int) -> Change:
    """The change that cancels the stragglers of the present round."""
    request = {
        "request_id": request_id,
        "experiment_id": live.experiment_id,
        "reason": _REASON,
        "stragglers": True,
    }
    return Change(
        request_id=request_id,
        experiment=live.key,
        verb=Verb.CANCEL.value,
        request=documents.encode(request).decode(),
        received_ms=at_ms,
        state=live.record.state,
        round=live.record.round,
        revision=live.record.revision,
        language=version.VERSION,
    )


def _request_id(live: Live) -> str:
    return f"{changes.OWN_REQUEST}{live.experiment_id}-{live.record.round}"


def _of_round(live: Live) -> RoundJobs:
    earlier_jobs = live.record.earlier_jobs
    decided, recorded = settling.jobs(live.tally, earlier_jobs), settling.jobs(live.recorded, earlier_jobs)
    # The record is ahead of the disk: jobs that are retried just now still count there as ended.
    return RoundJobs(min(decided.ended, recorded.ended), max(decided.total, recorded.total))


def _terms(live: Live) -> Terms:
    settle = live.plan.settle
    return Terms(settle.quorum.needed(_of_round(live).total), round(1000 * settle.grace_seconds))


def _has_grace(live: Live) -> bool:
    """Whether the round may settle before its last job ends."""
    return live.plan.settle.quorum.needed(live.recorded.total) < live.recorded.total
