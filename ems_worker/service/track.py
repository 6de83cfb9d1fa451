"""Events in: what the orchestrator says of runs becomes state, is recorded, and only then acknowledged."""

import asyncio
from collections.abc import Callable, Sequence

import structlog

from ems_worker import errors
from ems_worker.core import ids
from ems_worker.core.lifecycle import run
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import Effect
from ems_worker.core.records import ParkedEvent
from ems_worker.core.wire import Message
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock, Steady
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.poison import Guard
from ems_worker.service.base.ports import Broker, Manifest
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import RunKey

log = structlog.get_logger()

# So many events at once mean that more wait.
_BACKLOG = 400
_WAIT_SECONDS = 1.0
# At the start dispatch waits to hear whether there is a backlog.
_FIRST_WAIT_SECONDS = 0.1
# Verdicts on events that can't be used, and what is said of them in the dead letters.
PUT_ASIDE = {
    Effect.CONTRADICTION: "{name} has ended otherwise: {event} came too late",
    Effect.EXCESS: (
        "{name} would have more metrics than are kept of a run: " + f"{run.MAX_METRICS:,}, half of these before its end"
    ),
}

# How an event's bytes are understood: (subject, data) to the run's name and what is said of it.
Decode = Callable[[str, bytes], tuple[str, Signal]]


class Tracker:
    """Applies batches of events. `parked` says whether events of unknown runs wait in the manifest."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        broker: Broker,
        decode: Decode,
        clock: Clock,
        metrics: Metrics,
        max_parked: int,
        on_backlog: Callable[[bool], None],
    ) -> None:
        """`max_parked`: how many events of unknown runs are kept.

        `on_backlog` receives whether more events wait than fit in a batch.
        """
        self._ledger = ledger
        self._manifest = manifest
        self._broker = broker
        self._decode = decode
        self._clock = clock
        self._metrics = metrics
        self._max_parked = max_parked
        self._steady = Steady(clock)
        self._on_backlog = on_backlog
        self._guard = Guard(manifest, broker, metrics, "event")
        self.parked = True
        # Of live experiments when parked events were last looked at: points and attempts.
        self._sizes: dict[str, tuple[int, int]] = {}
        self._first = True
        # Experiments of which it was said that events name their runs in the wrong case.
        self._in_other_case: set[str] = set()

    async def run(self) -> None:
        """For ever: the next events."""
        wait = _FIRST_WAIT_SECONDS
        while True:
            messages = await self._broker.events(wait)
            wait = _WAIT_SECONDS
            if messages:
                await self._guard.process(messages, self.track)
            else:
                await asyncio.sleep(0)  # whatever the broker does, this loop leaves others their turn
            self._on_backlog(len(messages) >= _BACKLOG)

    async def track(self, messages: Sequence[Message]) -> None:
        """Applies one batch and acknowledges it; what can't be understood goes to the dead letters."""
        read: list[tuple[Message, str, Signal]] = []
        good: list[Message] = []
        for message in messages:
            crash.point("track.read", message.subject)
            try:
                name, signal = self._decode(message.subject, message.data)
            except errors.Unreadable as error:
                log.warning("event.unreadable", subject=message.subject, seq=message.seq, reason=str(error))
                await self._broker.dead_letter(message, str(error), "event")
                self._metrics.events.labels("unreadable").inc()
                self._metrics.dead_letters.labels("event").inc()
                continue
            read.append((message, name, signal))
            good.append(message)
        crash.point("track.decoded")
        unknown, unusable = await self._apply([(name, signal) for _, name, signal in read])
        crash.point("track.recorded")
        for index, effect in unusable.items():
            message, name, signal = read[index]
            log.warning(f"event.{effect}", simulation_id=name, subject=message.subject, seq=message.seq)
            words = PUT_ASIDE[effect].format(name=name, event=signal.event)
            await self._broker.dead_letter(message, words, "event")
        if unknown:
            await self._park([read[index] for index in unknown])
        refused = {id(read[index][0]) for index in unusable}
        await self._broker.ack([message for message in good if id(message) not in refused])
        crash.point("track.acked")

    async def _apply(self, items: Sequence[tuple[str, Signal]]) -> tuple[list[int], dict[int, Effect]]:
        """Applies what concerns known runs; the positions of what doesn't, and of what can't be used."""
        runs = await self._ledger.find(dict.fromkeys(name for name, _ in items))
        known: list[tuple[int, RunKey, Signal]] = []
        unknown: list[int] = []
        unusable: dict[int, Effect] = {}
        for index, (name, signal) in enumerate(items):
            if (key := runs.get(name)) is None:
                unknown.append(index)
            else:
                known.append((index, key, signal))
        effects = await self._ledger.hear([(key, signal) for _, key, signal in known])
        for (index, _, _), effect in zip(known, effects, strict=True):
            if effect is None:
                unknown.append(index)
                continue
            self._metrics.events.labels(effect.value).inc()
            if effect in PUT_ASIDE:
                self._metrics.dead_letters.labels("event").inc()
                unusable[index] = effect
        return unknown, unusable

    async def _park(self, items: Sequence[tuple[Message, str, Signal]]) -> None:
        now_ms = self._steady.now_ms()
        events = [ParkedEvent(name, message.subject, message.seq, now_ms, message.data) for message, name, _ in items]
        dropped = await self._manifest.park(events, self._max_parked)
        for name in {name for _, name, _ in items}:
            if (parsed := ids.parse_simulation_id(name)) is not None:
                # It may have come to be since it was looked for.
                self._sizes.pop(parsed.experiment_id, None)
        self._warn_of_case([name for _, name, _ in items])
        self.parked = True
        self._metrics.events.labels("parked").inc(len(events))
        if dropped:
            log.warning("event.parked_full", dropped=dropped, keep=self._max_parked)

    def _warn_of_case(self, names: Sequence[str]) -> None:
        """Says once an experiment that its events are parked for a letter: they would be dropped without a word."""
        live = {one.experiment_id for one in self._ledger.experiments()}
        self._in_other_case &= live
        experiments = ids.in_lower_case(live)
        for name in names:
            meant = ids.in_other_case(name, experiments)
            if meant is not None and meant.experiment_id not in self._in_other_case:
                self._in_other_case.add(meant.experiment_id)
                log.warning("event.other_case", simulation_id=name, meant=str(meant))

    def parked_since_ms(self, seconds: float) -> int:
        """The time before which events were parked at least so long ago, whatever became of the wall clock.

        0 at first: between this process and the one before it the clock may have been set.
        """
        return 0 if self._steady.seconds < seconds else self._steady.now_ms() - round(1000 * seconds)

    async def retry_parked(self, older_than_ms: int) -> None:
        """Applies parked events whose runs are known by now; those parked before `older_than_ms` are dropped."""
        if not self.parked:
            return
        # Before the look: what is parked during it sets this again.
        self.parked = False
        if expired := await self._manifest.expire_parked(older_than_ms):
            log.info("event.parked_expired", count=expired)
        parked = await self._to_retry()
        items = [self._decode(event.subject, event.data) for event in parked]
        unknown, unusable = await self._apply(items)
        for index, effect in unusable.items():
            log.warning(f"event.{effect}", simulation_id=parked[index].simulation_id, seq=parked[index].seq)
        waiting = set(unknown)
        await self._manifest.unpark([event for index, event in enumerate(parked) if index not in waiting])
        self.parked |= await self._manifest.any_parked()

    async def _to_retry(self) -> Sequence[ParkedEvent]:
        """At first all that are parked, then those of experiments that have new points or attempts since.

        Others wait for something that won't come, as those of other systems do; there may be thousands of them.
        """
        sizes = {
            live.experiment_id: (live.record.expanded_points, live.attempts) for live in self._ledger.experiments()
        }
        before, self._sizes = self._sizes, sizes
        if self._first:
            self._first = False
            return await self._manifest.parked()
        grown = [name for name, size in sizes.items() if before.get(name) != size]
        return await self._manifest.parked_of(grown) if grown else ()
