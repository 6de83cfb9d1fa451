"""Run events are applied to their runs, recorded, and only then acknowledged."""

import asyncio
import contextlib
from collections import Counter
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

# A batch of this many events means that more wait.
_BACKLOG = 400
_WAIT_SECONDS = 5.0
# These waits are short: dispatch doesn't begin before it is known whether there is a backlog, nor while there is one.
_SHORT_WAIT_SECONDS = 0.1
# Effects of events that become dead letters, with the reason in the letter.
DEAD_LETTER_REASONS = {
    Effect.CONTRADICTION: "{name} has ended otherwise: {event} came too late",
    Effect.EXCESS: (
        "{name} would have more metrics than are kept for a run: "
        + f"{run.MAX_METRICS:,}, half of these before its end"
    ),
}

# Decodes an event: (subject, data) to the simulation id and the signal.
Decode = Callable[[str, bytes], tuple[str, Signal]]


class Tracker:
    """Applies batches of events. `parked`: whether events of unknown runs wait in the manifest."""

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

        `on_backlog` receives, after each batch, whether more events wait than fit in one.
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
        # How many points and attempts each experiment had when its parked events were last applied.
        self._sizes: dict[str, tuple[int, int]] = {}
        self._first = True
        # Experiments for which a warning about the wrong case of simulation ids was logged.
        self._in_other_case: set[str] = set()

    async def run(self) -> None:
        """Applies events as they arrive, without end."""
        wait = _SHORT_WAIT_SECONDS
        while True:
            messages = await self._broker.events(wait)
            behind = len(messages) >= _BACKLOG
            wait = _SHORT_WAIT_SECONDS if behind else _WAIT_SECONDS
            if messages:
                await self._guard.process(messages, self.track)
            else:
                await asyncio.sleep(0)  # other tasks get their turn even if the broker returns at once
            self._on_backlog(behind)

    def names(self, messages: Sequence[Message]) -> list[str]:
        """The simulation ids of events; those that can't be read are left out."""
        names: list[str] = []
        for message in messages:
            with contextlib.suppress(errors.Unreadable):
                names.append(self._decode(message.subject, message.data)[0])
        return names

    async def track(self, messages: Sequence[Message]) -> None:
        """Applies a batch and acknowledges it; events that can't be used become dead letters."""
        decoded: list[tuple[Message, str, Signal]] = []
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
            decoded.append((message, name, signal))
        crash.point("track.decoded")
        unknown, unusable = await self._apply([(name, signal) for _, name, signal in decoded])
        crash.point("track.recorded")
        for index, effect in unusable.items():
            message, name, signal = decoded[index]
            log.warning(f"event.{effect}", simulation_id=name, subject=message.subject, seq=message.seq)
            reason = DEAD_LETTER_REASONS[effect].format(name=name, event=signal.event)
            await self._broker.dead_letter(message, reason, "event")
        if unknown:
            await self._park([decoded[index] for index in unknown])
        # Dead letters are acknowledged already.
        await self._broker.ack([message for index, (message, _, _) in enumerate(decoded) if index not in unusable])
        crash.point("track.acked")

    async def _apply(self, items: Sequence[tuple[str, Signal]]) -> tuple[list[int], dict[int, Effect]]:
        """Applies events of known runs; returns the positions of events of unknown runs, and of unusable events."""
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
        for effect, count in Counter(effects).items():
            if effect is not None:
                self._metrics.events.labels(effect.value).inc(count)
        for (index, _, _), effect in zip(known, effects, strict=True):
            if effect is None:
                unknown.append(index)
            elif effect in DEAD_LETTER_REASONS:
                self._metrics.dead_letters.labels("event").inc()
                unusable[index] = effect
        return unknown, unusable

    async def _park(self, items: Sequence[tuple[Message, str, Signal]]) -> None:
        now_ms = self._steady.now_ms()
        events = [ParkedEvent(name, message.subject, message.seq, now_ms, message.data) for message, name, _ in items]
        dropped = await self._manifest.park(events, self._max_parked)
        for name in {name for _, name, _ in items}:
            if (parsed := ids.parse_simulation_id(name)) is not None:
                # Its run may have been created since it was looked up.
                self._sizes.pop(parsed.experiment_id, None)
        self._warn_of_case([name for _, name, _ in items])
        self.parked = True
        self._metrics.events.labels("parked").inc(len(events))
        if dropped:
            log.warning("event.parked_full", dropped=dropped, keep=self._max_parked)

    def _warn_of_case(self, names: Sequence[str]) -> None:
        """Warns, once for each experiment, about events that are unknown only because of the case of a letter."""
        live = {experiment.experiment_id for experiment in self._ledger.experiments()}
        self._in_other_case &= live
        experiments = ids.in_lower_case(live)
        for name in names:
            meant = ids.in_other_case(name, experiments)
            if meant is not None and meant.experiment_id not in self._in_other_case:
                self._in_other_case.add(meant.experiment_id)
                log.warning("event.other_case", simulation_id=name, meant=str(meant))

    def parked_since_ms(self, seconds: float) -> int:
        """The time of parking of events that were parked this long ago, even if the wall clock was set meanwhile.

        0 until this process has run for that long, because the clock may have been set before its start.
        """
        return 0 if self._steady.seconds < seconds else self._steady.now_ms() - round(1000 * seconds)

    async def retry_parked(self, older_than_ms: int) -> None:
        """Applies parked events whose runs are known by now; drops events that were parked before `older_than_ms`."""
        if not self.parked:
            return
        # First, because events that are parked during this method set it again.
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
        any_left = await self._manifest.any_parked()
        # Not `|=`: that would overwrite what was set while the manifest was asked.
        self.parked = self.parked or any_left

    async def _to_retry(self) -> Sequence[ParkedEvent]:
        """All parked events the first time, later those of experiments with new points or attempts.

        Events of other systems may wait by the thousand for runs that will never exist.
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
