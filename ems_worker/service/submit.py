"""Claimed runs are sent to the orchestrator until each has an answer that settles it.

A command that may not have arrived is sent again, after a pause and under the same id. A run that isn't wanted any more
is not sent: it is cancelled at once if no command for it can have arrived, else `limits` stops it.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import structlog

from ems_worker.core.lifecycle import retry
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from ems_worker.core.lifecycle.run import UNWANTED, ErrorKind, Run, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState
from ems_worker.core.records import PointRecord
from ems_worker.core.wire import Start
from ems_worker.service.answers import Answers
from ems_worker.service.base import crash
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.ports import Manifest, Orchestrator
from ems_worker.service.base.versions import Versions
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.reach import Claimed, Reach

log = structlog.get_logger()

# How many runs are claimed in one commit and sent together.
BATCH = 256
_FIRST_PAUSE_SECONDS = 0.2
_MAX_PAUSE_SECONDS = 5.0
# Outcomes after which a run isn't sent again.
_SETTLING = (Outcome.SUBMITTED, Outcome.REFUSED)


class Submitter:
    """Sends start commands. One task at a time sends a run, and a run that takes long delays no other."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        orchestrator: Orchestrator,
        clock: Clock,
        metrics: Metrics,
        on_relief: Callable[[], None],
        versions: Versions,
        hold: bool = False,
    ) -> None:
        """`on_relief` is called when commands get through again. `hold`: nothing is sent again before `release`."""
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._versions = versions
        self.reach = Reach(ledger, orchestrator, clock, on_relief)
        # Runs whose commands are under way or wait to be sent again.
        self.sending: dict[RunKey, Claimed] = {}
        # Those of them for which a command may have arrived.
        self._may_have_arrived: set[RunKey] = set()
        self._released = asyncio.Event()
        if not hold:
            self._released.set()

    @property
    def held(self) -> bool:
        """Whether nothing is sent since the start, until `release`."""
        return not self._released.is_set()

    def release(self) -> bool:
        """Ends the hold; whether there was one."""
        held = self.held
        self._released.set()
        return held

    def is_sending(self, key: RunKey) -> bool:
        """Whether a command for this run is under way or about to be sent: STOP must not overtake it."""
        claimed = self.sending.get(key)
        return claimed is not None and self.reach.is_unsettled(claimed)

    async def resend(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again whose commands may not have arrived, or that a wiped orchestrator has forgotten."""
        await self._released.wait()
        batches = asyncio.Semaphore(1)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(runs), BATCH):
                await batches.acquire()
                part = runs[start : start + BATCH]
                points: dict[int, Mapping[int, PointRecord]] = {}
                for live in {live.key: live for live, _ in part}.values():
                    numbers = sorted({run.point for owner, run in part if owner is live})
                    points[live.key] = await self._manifest.points_by_number(live.key, numbers)
                claimed = [Claimed.of(live, run, points[live.key][run.point]) for live, run in part]
                group.create_task(self.submit(claimed, batches.release, sent_before=True))

    async def submit(
        self,
        runs: Sequence[Claimed],
        on_answered: Callable[[], None] = lambda: None,
        *,
        sent_before: bool = False,
    ) -> None:
        """Sends commands until each has an answer that settles it; runs that are being sent already are left out.

        `on_answered` is called once, when each command has an answer or is late: the next batch may be sent then,
        although some of these commands have to be sent again. `sent_before`: commands for these runs may have arrived
        already.
        """
        left = {claimed.name: claimed for claimed in runs if claimed.key not in self.sending}
        self.sending.update((claimed.key, claimed) for claimed in left.values())
        if sent_before:
            self._may_have_arrived.update(claimed.key for claimed in left.values())
        answered = contextlib.ExitStack()
        answered.callback(on_answered)
        try:
            with answered:
                async with asyncio.TaskGroup() as group:
                    await self._send(group, left, list(left), on_answered=answered.close)
        finally:
            for name in list(left):
                self._remove(left, name)
            self.reach.check()

    async def _send(
        self,
        group: asyncio.TaskGroup,
        left: dict[str, Claimed],
        names: Sequence[str],
        *,
        on_answered: Callable[[], None] = lambda: None,
        failures: int = 0,
    ) -> None:
        """Sends the named runs in `left` until each is settled, late or unwanted. After failures, a pause precedes."""
        while names:
            if failures:
                # Also before the pause: a run that isn't wanted any more must not wait for it.
                await self._drop_unwanted(left, names)
                await asyncio.sleep(retry.pause_seconds(failures, names[0], _FIRST_PAUSE_SECONDS, _MAX_PAUSE_SECONDS))
            await self._drop_unwanted(left, names)
            to_send: list[str] = []
            unsettled: list[str] = []
            settled = 0
            for name in [name for name in names if name in left]:
                # The orchestrator may have been replaced by one with another version of the model since the claim.
                (to_send if self._versions.waiting(left[name].live.plan) is None else unsettled).append(name)
            if to_send:
                not_settled, settled = await self._send_once(group, left, to_send, failures)
                unsettled += not_settled
            on_answered()
            names, failures = unsettled, 1 if settled else failures + 1

    async def _send_once(
        self, group: asyncio.TaskGroup, left: dict[str, Claimed], names: Sequence[str], failures: int
    ) -> tuple[list[str], int]:
        """Sends each of these runs once; returns the runs to send again and how many were settled.

        Another task waits for late answers.
        """
        answers, began = Answers(names), self._clock.monotonic()
        commands = [self._command(left[name]) for name in names]
        group.create_task(self._orchestrator.start(commands, answers.add, lambda name: self._wanted(left, name)))
        unsettled: list[str] = []
        settled = 0
        while answers.open:
            not_settled, count = await self._record(left, await answers.gathered(), began)
            unsettled += not_settled
            settled += count
        if answers.late:
            group.create_task(self._await_late(group, left, answers, began=began, failures=failures + 1))
        return unsettled, settled

    async def _await_late(
        self, group: asyncio.TaskGroup, left: dict[str, Claimed], answers: Answers, *, began: float, failures: int
    ) -> None:
        """Waits for late answers, and sends the runs again that these don't settle."""
        unsettled: list[str] = []
        while answers.late:
            unsettled += (await self._record(left, await answers.gathered(), began))[0]
        await self._send(group, left, unsettled, failures=failures)

    async def _record(self, left: dict[str, Claimed], calls: Sequence[Call], began: float) -> tuple[list[str], int]:
        """Records the results of calls; returns the runs to send again and how many were settled."""
        settled: list[tuple[Claimed, Answer]] = []
        unsettled: list[Answer] = []
        unsent: list[str] = []
        answered: Counter[Outcome] = Counter()
        for call in calls:
            if call.answers[0].outcome is Outcome.UNSENT:
                unsent += [answer.simulation_id for answer in call.answers]
                continue
            self.reach.call_ended(call)
            for answer in call.answers:
                name = answer.simulation_id
                if answer.outcome in _SETTLING:
                    settled.append((left[name], answer))
                else:
                    self.reach.wait(name, left[name], began, answer)
                if answer.outcome is Outcome.LATE:
                    continue
                answered[answer.outcome] += 1
                if answer.outcome not in _SETTLING:
                    unsettled.append(answer)
                if answer.outcome is Outcome.UNKNOWN:
                    self._may_have_arrived.add(left[name].key)
            if call.answers[0].outcome is not Outcome.LATE:
                self._metrics.start_seconds.observe(call.seconds)
        for outcome, count in answered.items():
            self._metrics.starts.labels(outcome.value).inc(count)
        if unsettled and unsettled[0].outcome is not Outcome.HALT:
            log.warning("dispatch.delayed", runs=len(unsettled), code=unsettled[0].code, words=unsettled[0].message)
        crash.point("dispatch.answered")
        await self._settle(settled)
        for _, answer in settled:
            self._remove(left, answer.simulation_id)
        crash.point("dispatch.settled")
        self.reach.check()
        # An unsent run without a reason to be stopped may get one yet, by a change that is being carried out.
        return [*(answer.simulation_id for answer in unsettled), *unsent], len(settled)

    def _wanted(self, left: Mapping[str, Claimed], name: str) -> bool:
        """Whether a run is to be sent now: it is as it was claimed, and neither stopped nor about to be."""
        claimed = left[name]
        now = self._ledger.run(claimed.key)
        if now is None or now.state is not claimed.run.state or claimed.live.cancelling:
            return False
        return now.stop_reason is None and not now.drains

    async def _drop_unwanted(self, left: dict[str, Claimed], names: Sequence[str]) -> None:
        """Drops runs that an event has settled, and those that are not wanted any more.

        The latter are cancelled if no command for them can have arrived. Otherwise they are stopped like all others.
        """
        dropped: list[str] = []
        never_sent: list[RunKey] = []
        for name in [name for name in names if name in left]:
            claimed = left[name]
            key = claimed.key
            now = self._ledger.run(key)
            if now is None or now.state is not claimed.run.state:
                dropped.append(name)
            elif now.stop_reason is not None or now.drains:
                dropped.append(name)
                if now.state is RunState.SUBMITTING and key not in self._may_have_arrived:
                    never_sent.append(key)
        if never_sent:
            log.info("dispatch.unsent", runs=len(never_sent))
            await self._ledger.hear([(key, Signal(RunEvent.CANCEL)) for key in never_sent])
        for name in dropped:
            self._remove(left, name)

    def _remove(self, left: dict[str, Claimed], name: str) -> None:
        key = left.pop(name).key
        del self.sending[key]
        self._may_have_arrived.discard(key)
        self.reach.stop_waiting(name)

    async def _settle(self, answers: Sequence[tuple[Claimed, Answer]]) -> None:
        accepted: list[RunKey] = []
        signals: list[tuple[RunKey, Signal]] = []
        for claimed, answer in answers:
            if answer.outcome is Outcome.REFUSED:
                message = f"{answer.code}: {answer.message}"
                log.warning("run.refused", simulation_id=answer.simulation_id, code=answer.code, words=answer.message)
                # A running run was sent again because the orchestrator forgot it. If it is refused, it isn't running.
                event = RunEvent.FAIL if claimed.run.state is RunState.RUNNING else RunEvent.REFUSE
                signal = Signal(event, ErrorKind.REFUSED, message, retryable=False)
                if (now := self._ledger.run(claimed.key)) is not None and now.stop_reason in UNWANTED:
                    # It was to be stopped as soon as its command had an answer.
                    signal = Signal(RunEvent.CANCEL)
                signals.append((claimed.key, signal))
            else:
                accepted.append(claimed.key)
        if accepted:
            await self._ledger.accept(accepted)
        if signals:
            await self._ledger.hear(signals)

    def _command(self, claimed: Claimed) -> Start:
        live, run, point, _, name = claimed
        return Start(
            simulation_id=name,
            config=live.template.render(point.params, run.seed, name),
            config_sha=run.config_sha or live.template.config_sha(point.params, run.seed),
            seed=run.seed,
            experiment_id=live.experiment_id,
            labels=dict(point.labels or {}),
            traceparent=live.record.spec.traceparent,
            alone=self.reach.last_code(name) == "DEADLINE_EXCEEDED",
        )
