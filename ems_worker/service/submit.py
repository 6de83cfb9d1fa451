"""Claimed runs on their way to the orchestrator: sent until each has an answer that settles it.

An answer that leaves open whether the command arrived sends it again under the same id, later.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence

import structlog

from ems_worker.core import ids
from ems_worker.core.lifecycle import retry
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal
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

# Runs sent together: a commit each, and enough for a batch call.
BATCH = 256
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
# Answers after which a run isn't sent again.
_SETTLING = (Outcome.SUBMITTED, Outcome.REFUSED)


class Submitter:
    """Sends start commands. Each run is sent by one task at a time, and one that takes long holds up no other."""

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
    ) -> None:
        """`on_relief` hears that commands get through again."""
        self._ledger = ledger
        self._manifest = manifest
        self._orchestrator = orchestrator
        self._clock = clock
        self._metrics = metrics
        self._versions = versions
        self.reach = Reach(ledger, orchestrator, clock, on_relief)
        # Runs that a command is under way for, or waits to be sent again.
        self.sending: set[RunKey] = set()

    async def resend(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again that may not have arrived, or that a wiped orchestrator has forgotten."""
        turn = asyncio.Semaphore(1)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(runs), BATCH):
                await turn.acquire()
                part = runs[start : start + BATCH]
                points: dict[int, Mapping[int, PointRecord]] = {}
                for live in {live.key: live for live, _ in part}.values():
                    numbers = sorted({run.point for one, run in part if one is live})
                    points[live.key] = await self._manifest.points_by_number(live.key, numbers)
                claimed = [(live, run, points[live.key][run.point]) for live, run in part]
                group.create_task(self.submit(claimed, turn.release))

    async def submit(self, runs: Sequence[Claimed], pass_on: Callable[[], None] = lambda: None) -> None:
        """Sends commands until each has an answer that settles it, but for those that are being sent already.

        `pass_on` is called once, when the next batch may go: when each command has been answered, or is late. What has
        to be sent again holds up nobody but itself.
        """
        left = {_name(one): one for one in runs if _key(one) not in self.sending}
        self.sending.update(_key(one) for one in left.values())
        turn = contextlib.ExitStack()
        turn.callback(pass_on)
        try:
            with turn:
                async with asyncio.TaskGroup() as group:
                    await self._send(group, left, list(left), turn.close)
        finally:
            for name in list(left):
                self._forget(left, name)
            self.reach.look()

    async def _send(
        self,
        group: asyncio.TaskGroup,
        left: dict[str, Claimed],
        names: Sequence[str],
        pass_on: Callable[[], None] = lambda: None,
        failures: int = 0,
    ) -> None:
        """Sends these of the runs that are left until they are settled, or late; after failures, following a pause."""
        while names:
            if failures:
                await asyncio.sleep(
                    retry.pause_seconds(failures, names[0], _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                )
            for name in [name for name in names if not self.reach.is_open(left[name])]:
                self._forget(left, name)
            going: list[str] = []
            again: list[str] = []
            settled = 0
            for name in [name for name in names if name in left]:
                # Those that were on their way when another version of the model came wait for their own.
                (going if self._versions.waiting(left[name][0].plan) is None else again).append(name)
            if going:
                unsettled, settled = await self._round(group, left, going, failures)
                again += unsettled
            pass_on()
            names, failures = again, 1 if settled else failures + 1

    async def _round(
        self, group: asyncio.TaskGroup, left: dict[str, Claimed], names: Sequence[str], failures: int
    ) -> tuple[list[str], int]:
        """Sends each once: those to be sent again, and how many were settled. Another task follows the late ones."""
        answers, began = Answers(names), self._clock.monotonic()
        group.create_task(self._orchestrator.start([self._command(left[name]) for name in names], answers.tell))
        again: list[str] = []
        settled = 0
        while answers.open:
            unsettled, count = await self._hear(left, await answers.gathered(), began)
            again += unsettled
            settled += count
        if answers.late:
            group.create_task(self._follow(group, left, answers, began, failures + 1))
        return again, settled

    async def _follow(
        self, group: asyncio.TaskGroup, left: dict[str, Claimed], answers: Answers, began: float, failures: int
    ) -> None:
        """Waits for the answers of calls that were set aside, and sends again what they leave open."""
        again: list[str] = []
        while answers.late:
            again += (await self._hear(left, await answers.gathered(), began))[0]
        await self._send(group, left, again, failures=failures)

    async def _hear(self, left: dict[str, Claimed], calls: Sequence[Call], began: float) -> tuple[list[str], int]:
        """Records what calls have come to: the runs that have to be sent again, and how many were settled."""
        settled: list[tuple[Claimed, Answer]] = []
        unsettled: list[Answer] = []
        for call in calls:
            self.reach.hear(call)
            for answer in call.answers:
                name = answer.simulation_id
                if answer.outcome in _SETTLING:
                    settled.append((left[name], answer))
                else:
                    self.reach.wait(name, left[name], began, answer)
                if answer.outcome is Outcome.LATE:
                    continue
                self._metrics.starts.labels(answer.outcome.value).inc()
                if answer.outcome not in _SETTLING:
                    unsettled.append(answer)
            if call.answers[0].outcome is not Outcome.LATE:
                self._metrics.start_seconds.observe(call.seconds)
        if unsettled and unsettled[0].outcome is not Outcome.HALT:
            log.warning("dispatch.delayed", runs=len(unsettled), code=unsettled[0].code, words=unsettled[0].message)
        crash.point("dispatch.answered")
        await self._settle(settled)
        for _, answer in settled:
            self._forget(left, answer.simulation_id)
        crash.point("dispatch.settled")
        self.reach.look()
        return [answer.simulation_id for answer in unsettled], len(settled)

    def _forget(self, left: dict[str, Claimed], name: str) -> None:
        self.sending.discard(_key(left.pop(name)))
        self.reach.forget(name)

    async def _settle(self, answers: Sequence[tuple[Claimed, Answer]]) -> None:
        signals: list[tuple[RunKey, Signal]] = []
        for claimed, answer in answers:
            if answer.outcome is Outcome.REFUSED:
                words = f"{answer.code}: {answer.message}"
                log.warning("run.refused", simulation_id=answer.simulation_id, code=answer.code, words=answer.message)
                # A run that had started was sent again to an orchestrator that forgot it: that one has no such run.
                event = RunEvent.FAIL if claimed[1].state is RunState.RUNNING else RunEvent.REFUSE
                signal = Signal(event, ErrorKind.REFUSED, words, retryable=False)
            else:
                signal = Signal(RunEvent.ACCEPT)
            signals.append((_key(claimed), signal))
        if signals:
            await self._ledger.hear(signals)

    def _command(self, claimed: Claimed) -> Start:
        live, run, point = claimed
        name = _name(claimed)
        return Start(
            simulation_id=name,
            config=live.template.render(point.params, run.seed, name),
            config_sha=run.config_sha or live.template.config_sha(point.params, run.seed),
            seed=run.seed,
            experiment_id=live.experiment_id,
            labels={**live.plan.labels, **(point.labels or {})},
            traceparent=live.record.spec.traceparent,
            alone=self.reach.last_code(name) == "DEADLINE_EXCEEDED",
        )


def _key(claimed: Claimed) -> RunKey:
    live, run, _ = claimed
    return live.key, run.point, run.replicate, run.attempt


def _name(claimed: Claimed) -> str:
    live, run, _ = claimed
    return ids.simulation_id(live.experiment_id, run.point, run.replicate, run.attempt)
