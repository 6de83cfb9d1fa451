"""Claimed runs on their way to the orchestrator: sent until each has an answer that settles it.

An answer that leaves open whether the command arrived sends it again under the same id, later.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from ems_worker.core import ids, retry
from ems_worker.core.outcome import Answer, Outcome
from ems_worker.core.records import PointRecord
from ems_worker.core.run import ErrorKind, Run, RunEvent, RunState, Signal
from ems_worker.core.wire import Start
from ems_worker.service import crash
from ems_worker.service.clock import Clock
from ems_worker.service.ledger import Ledger
from ems_worker.service.live import Live, RunKey
from ems_worker.service.metrics import Metrics
from ems_worker.service.ports import Manifest, Orchestrator
from ems_worker.service.versions import Versions

log = structlog.get_logger()

# Runs sent together: a commit each, and enough for a batch call.
BATCH = 256
_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 5.0
# Unsettled answers that say something about the orchestrator, not about one run.
_COMMON_CODES = frozenset({"UNAVAILABLE", "DEADLINE_EXCEEDED"})

Claimed = tuple[Live, Run, PointRecord]


class Submitter:
    """Sends start commands. `halted` holds the orchestrator's words while it refuses all submissions."""

    def __init__(
        self,
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
        self._on_relief = on_relief
        self._versions = versions
        self._troubles = 0
        # Runs that a command is under way for, or waits to be sent again.
        self.sending: set[RunKey] = set()
        self.halted: str | None = None

    @property
    def stuck(self) -> bool:
        """Whether commands can't be delivered now: nothing new is claimed then."""
        return self.halted is not None or self._troubles > 0

    async def resend(self, runs: Sequence[tuple[Live, Run]]) -> None:
        """Sends runs again that may not have arrived, or that a wiped orchestrator has forgotten."""
        turn = asyncio.Semaphore(1)
        async with asyncio.TaskGroup() as group:
            for start in range(0, len(runs), BATCH):
                await turn.acquire()
                part = [(live, run) for live, run in runs[start : start + BATCH] if _key(live, run) not in self.sending]
                points: dict[int, Mapping[int, PointRecord]] = {}
                for live in {live.key: live for live, _ in part}.values():
                    numbers = sorted({run.point for one, run in part if one is live})
                    points[live.key] = await self._manifest.points_by_number(live.key, numbers)
                claimed = [(live, run, points[live.key][run.point]) for live, run in part]
                group.create_task(self.submit(claimed, turn.release))

    async def submit(self, runs: Sequence[Claimed], pass_on: Callable[[], None] = lambda: None) -> None:
        """Sends commands until each has an answer that settles it.

        `pass_on` is called once, when the next batch may go: at the end, or when all that is left are single runs that
        the orchestrator has trouble with. These hold up nobody but themselves.
        """
        keys = {_key(live, run) for live, run, _ in runs}
        self.sending |= keys
        in_trouble = passed_on = False
        try:
            waiting = self._still_open({_name(live, run): (live, run, point) for live, run, point in runs})
            failures = 0
            while waiting:
                # Those that were on their way when another version of the model came wait for their own.
                going = [one for one in waiting.values() if self._versions.waiting(one[0].plan) is None]
                answers = await self._start([_command(*one) for one in going]) if going else ()
                crash.point("dispatch.answered")
                settled = {answer.simulation_id: answer for answer in answers if _settles(answer)}
                await self._settle([(waiting.pop(name), answer) for name, answer in settled.items()])
                crash.point("dispatch.settled")
                common = next((answer for answer in answers if _is_common(answer)), None)
                if in_trouble != (common is not None):
                    # Nothing new is claimed while commands can't be delivered.
                    in_trouble = common is not None
                    self._troubles += 1 if in_trouble else -1
                    if not in_trouble:
                        self._relieved()
                if not waiting:
                    break
                if common is None and not passed_on:
                    passed_on = True
                    pass_on()
                unsettled = next((answer for answer in answers if not _settles(answer)), None)
                if unsettled is not None:
                    self._tell(common or unsettled)
                failures = 1 if settled else failures + 1
                await asyncio.sleep(
                    retry.pause_seconds(failures, next(iter(waiting)), _FIRST_PAUSE_SECONDS, _LONGEST_PAUSE_SECONDS)
                )
                waiting = self._still_open(waiting)
        finally:
            self.sending -= keys
            self._troubles -= in_trouble
            if not passed_on:
                pass_on()
        if in_trouble:
            self._relieved()

    def _relieved(self) -> None:
        self.halted = None
        log.info("dispatch.recovered")
        self._on_relief()

    def _still_open(self, waiting: Mapping[str, Claimed]) -> dict[str, Claimed]:
        """Without those that events have moved on meanwhile."""
        kept = {}
        for name, (live, run, point) in waiting.items():
            job = self._ledger.jobs.get((live.key, run.point, run.replicate))
            if job is not None and job.attempt(run.attempt).state is run.state:
                kept[name] = (live, run, point)
        return kept

    async def _start(self, commands: Sequence[Start]) -> Sequence[Answer]:
        before = self._clock.monotonic()
        answers = await self._orchestrator.start(commands)
        self._metrics.start_seconds.observe(self._clock.monotonic() - before)
        for answer in answers:
            self._metrics.starts.labels(answer.outcome.value).inc()
        return answers

    async def _settle(self, answers: Sequence[tuple[Claimed, Answer]]) -> None:
        signals: list[tuple[RunKey, Signal]] = []
        for (live, run, _), answer in answers:
            if answer.outcome is Outcome.REFUSED:
                words = f"{answer.code}: {answer.message}"
                log.warning("run.refused", simulation_id=answer.simulation_id, code=answer.code, words=answer.message)
                # A run that had started was sent again to an orchestrator that forgot it: that one has no such run.
                event = RunEvent.FAIL if run.state is RunState.RUNNING else RunEvent.REFUSE
                signal = Signal(event, ErrorKind.REFUSED, words, retryable=False)
            else:
                signal = Signal(RunEvent.ACCEPT)
            signals.append((_key(live, run), signal))
        if signals:
            await self._ledger.hear(signals)

    def _tell(self, answer: Answer) -> None:
        """Logs trouble; that of a halt once, until the orchestrator says something else."""
        words = f"{answer.code}: {answer.message}"
        if answer.outcome is not Outcome.HALT:
            log.warning("dispatch.delayed", code=answer.code, words=answer.message)
        elif self.halted != words:
            self.halted = words
            log.error("dispatch.halted", code=answer.code, words=answer.message)


def _settles(answer: Answer) -> bool:
    return answer.outcome in (Outcome.SUBMITTED, Outcome.REFUSED)


def _is_common(answer: Answer) -> bool:
    """Whether the next command would fare no better."""
    return answer.outcome in (Outcome.HALT, Outcome.SLOW_DOWN) or answer.code in _COMMON_CODES


def _key(live: Live, run: Run) -> RunKey:
    return live.key, run.point, run.replicate, run.attempt


def _name(live: Live, run: Run) -> str:
    return ids.simulation_id(live.experiment_id, run.point, run.replicate, run.attempt)


def _command(live: Live, run: Run, point: PointRecord) -> Start:
    name = _name(live, run)
    return Start(
        simulation_id=name,
        config=live.template.render(point.params, run.seed, name),
        config_sha=run.config_sha or live.template.config_sha(point.params, run.seed),
        seed=run.seed,
        experiment_id=live.experiment_id,
        labels={**live.plan.labels, **(point.labels or {})},
        traceparent=live.record.spec.traceparent,
    )
