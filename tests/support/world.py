"""What is around a worker, played in memory: the plan stream, the orchestrator and the bus. It outlives the worker.

Everything is deterministic: a test decides what happens next, what gets lost, and at which named point the worker dies.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from ems_worker import errors
from ems_worker.adapters import event_codec
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.wire import Control, Controlled, Message, Start
from tests.support import evidence, oracle, whole
from tests.support.desk import CREATED_NS, Clock, Desk
from tests.support.evidence import Evidence
from tests.support.streams import Streams

# The runs that must not be sent any more.
_CALLED_OFF = """
    SELECT simulation_id FROM v_runs JOIN experiments USING (experiment_id)
    WHERE cancel IS NOT NULL OR stop_reason IS NOT NULL OR drains"""


class DiedError(Exception):
    """The worker died at a named point."""


@dataclass
class World:
    """`hiccups` are the next answers to start calls, from the end: a code, or "LOST" for an answer that gets lost."""

    failures: oracle.Failures
    clock: Clock = field(default_factory=Clock)
    plans: list[Message] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    # The orchestrator's runs: the digest of each configuration, and whether the run has ended.
    runs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    # Runs that were stopped, and those that are paused. `stop_code` and `pause_code` are its answers.
    stopped: set[str] = field(default_factory=set)
    suspended: set[str] = field(default_factory=set)
    stop_code: str = "OK"
    pause_code: str = "OK"
    # Whether a run may go on although the worker has given it up, or doesn't know it any more.
    astray: bool = False
    calls: list[list[str]] = field(default_factory=list)
    hiccups: list[str] = field(default_factory=list)
    # After this many more named points the worker dies; None: it lives.
    points_left: int | None = None
    manifest: Path = Path()

    def __post_init__(self) -> None:
        self.broker = Streams(clock=self.clock, plan_log=self.plans, event_log=self.events)

    def point(self, name: str, about: str = "") -> None:
        """Stands in for `crash.point`."""
        if self.points_left is not None:
            self.points_left -= 1
            if self.points_left <= 0:
                self.points_left = None
                raise DiedError(name)

    def publish(self, plan: Mapping[str, Any]) -> None:
        """Stores a plan in the stream, as if its publisher had got an acknowledgement."""
        data, seq = orjson.dumps(plan), len(self.plans) + 1
        self.plans.append(Message("EMS_PLANS", CREATED_NS, seq, "ems.experiment.submit", data, {}, 1, 0, "token"))

    @property
    def unacked(self) -> list[Message]:
        """The plan messages that will be delivered again."""
        return [message for message in self.plans if message.seq not in self.broker.acked]

    async def start(
        self, starts: Sequence[Start], on_call: Callable[[Call], None], wanted: Callable[[str], bool]
    ) -> None:
        """Answers start commands as the orchestrator does: a known run isn't started again."""
        if unsent := [name for start in starts if not wanted(name := start.simulation_id)]:
            on_call(Call(0.0, 0.0, tuple(Answer(name, Outcome.UNSENT, "") for name in unsent)))
            starts = [start for start in starts if start.simulation_id not in unsent]
        began = asyncio.get_running_loop().time()
        on_call(Call(began, 0.0, tuple(self._answers(starts))))

    def _answers(self, commands: Sequence[Start]) -> Sequence[Answer]:
        hiccup = self.hiccups.pop() if self.hiccups else "OK"
        if hiccup not in ("OK", "LOST"):
            return [Answer(command.simulation_id, outcome(hiccup), hiccup, "hiccup") for command in commands]
        recorded = set(
            whole.rows(self.manifest, "SELECT simulation_id, config_sha FROM v_runs WHERE state <> 'pending'")
        )
        off = set(whole.rows(self.manifest, _CALLED_OFF))
        answers = []
        for command in commands:
            name = command.simulation_id
            assert (name,) not in off, f"{name} was sent after it was cancelled"
            # After a restore an event may be all that is known of a run.
            known = {(name, command.config_sha), *([(name, None)] if self.astray else [])}
            assert known & recorded, f"{name} was sent before it was recorded"
            code = "ALREADY_EXISTS" if name in self.runs else "OK"
            if self.runs.setdefault(name, (command.config_sha, False))[0] != command.config_sha:
                code = "FAILED_PRECONDITION"
            kind = {"OK": "accepted", "ALREADY_EXISTS": "duplicate"}.get(code, "conflict")
            self.calls.append([kind, name, command.config_sha])
            answers.append(Answer(name, outcome(code), code))
        if hiccup == "LOST":
            return [
                Answer(answer.simulation_id, outcome("DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED") for answer in answers
            ]
        return answers

    async def control(self, simulation_id: str, action: Control) -> Controlled:
        """Answers ControlSimulation. A STOP that is confirmed ends the run, with its event."""
        name = simulation_id
        if name not in self.runs:
            return Controlled("NOT_FOUND")
        code = self.stop_code if action is Control.STOP else self.pause_code
        if code != "OK" or self.runs[name][1]:
            self.astray |= action is Control.STOP
            return Controlled("OK" if code == "SILENCE" else code)
        if action is not Control.STOP:
            (self.suspended.add if action is Control.PAUSE else self.suspended.discard)(name)
            return Controlled("OK", paused=name in self.suspended)
        self.stopped.add(name)
        self.end(name)
        return Controlled("OK")

    @property
    def running(self) -> list[str]:
        """The runs that may move on."""
        return [name for name, (_, ended) in self.runs.items() if not ended and name not in self.suspended]

    def begin(self, name: str) -> None:
        """Starts a run, with its event."""
        self._emit("sim.run_started", {"simulation_id": name})

    def end(self, name: str) -> None:
        """Ends a run, with the result that its id has in `failures`."""
        self.runs[name] = self.runs[name][0], True
        self.calls.append(["ended", name])
        self._emit(*self._ended(name))

    def _ended(self, name: str) -> tuple[str, Mapping[str, Any]]:
        """The event of a run that has ended."""
        result = self.failures.outcome(name)
        kind = "stopped" if name in self.stopped else result.error_kind and result.error_kind.value
        if kind is None:
            return "sim.run_completed", {"simulation_id": name, "metrics": result.metrics}
        return "sim.run_failed", {"simulation_id": name, "error_kind": kind}

    def wipe(self) -> None:
        """Makes the orchestrator forget all runs: those sent from now on are new to it."""
        self.runs.clear()
        self.suspended.clear()
        self.calls = [call for call in self.calls if call[0] == "ended"]

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """Answers GetSimulationStatus."""
        statuses: dict[str, Signal | None] = dict.fromkeys(simulation_ids)
        for name in simulation_ids:
            if name not in self.runs:
                continue
            if not self.runs[name][1]:
                statuses[name] = Signal(RunEvent.START)
            else:
                subject, event = self._ended(name)
                statuses[name] = event_codec.decode(subject, orjson.dumps(event))[1]
        return statuses

    def _emit(self, subject: str, body: Mapping[str, Any]) -> None:
        # Sequences differ from those of plans, because one list has the acknowledgements of both.
        data, seq = orjson.dumps(body), 1_000_000 + len(self.events)
        self.clock.seconds += 0.001
        now_ms = self.clock.now_ms()
        self.events.append(Message("SIM_EVENTS", CREATED_NS, seq, subject, data, {}, 1, now_ms, "token"))

    def evidence(self, manifest: Path) -> Evidence:
        """The present state, in the manifest and outside."""
        last: dict[str, Mapping[str, Any]] = {}
        for document in self.broker.statuses:
            if document["revision"] > last.get(document["experiment_id"], {"revision": 0})["revision"]:
                last[document["experiment_id"]] = document
        return replace(
            evidence.local(manifest, manifest.with_name("none")),
            calls=[list(call) for call in self.calls],
            acked={message.seq: orjson.loads(message.data) for message in self.plans},
            decisions={decision["submission"]["seq"]: decision for decision in self.broker.of("decision")},
            last_status=last,
            results=self.broker.of("result"),
            stopped=self.stopped,
            changed=self.broker.once("change"),
            settled=self.broker.once("settled"),
            dead=[evidence.Stored(seq, kind, {}) for kind, seq, _ in self.broker.dead],
        )


class Life:
    """The life of a worker in a world, from its start to its end or death."""

    def __init__(self, world: World, desk: Desk) -> None:
        self.world = world
        self.desk = desk
        self.control = desk.services.control
        self._reconciler = desk.services.reconciler

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(cls, world: World, directory: Path, window: int) -> AsyncIterator["Life"]:
        """Starts a worker and recovers what the one before left, as the daemon does."""
        async with Desk.open(directory, world.clock, broker=world.broker, run_window=window) as desk:
            world.manifest = directory / "manifest.db"
            desk.orchestrator.start = world.start  # type: ignore[method-assign] # the world answers
            desk.orchestrator.status = world.status  # type: ignore[method-assign]
            desk.orchestrator.control = world.control  # type: ignore[method-assign]
            life = cls(world, desk)
            await desk.services.replay.run()
            for live in desk.ledger.experiments():
                await desk.services.executor.finish(live)
                desk.reporter.notify(live.key)
            await desk.submitter.resend(desk.unsent)
            await desk.intake.publish_decisions()
            yield life

    async def take_plans(self) -> None:
        """Handles all plans that aren't acknowledged, in the order of the stream."""
        await self.desk.intake.take_again(self.world.unacked)

    async def expand(self) -> None:
        """Expands the next chunk of each experiment that isn't expanded, or has not begun."""
        for live in self.desk.ledger.experiments():
            if live.expands:
                await self.desk.expander.expand(live)

    async def dispatch(self) -> None:
        """Claims as many runs as the window has room for, and sends them until they are settled."""
        try:
            async with asyncio.TaskGroup() as group:
                while await self.desk.dispatcher.fill(group):
                    pass
        except BaseExceptionGroup as group_error:
            if died := group_error.subgroup(DiedError):
                raise DiedError("dispatch") from died
            raise

    async def track(self, messages: Sequence[Message]) -> None:
        """Applies these events, in this order."""
        await self.desk.tracker.track(messages)

    async def retry_parked(self) -> None:
        """Applies parked events once more."""
        await self.desk.tracker.retry_parked(0)

    async def reconcile(self) -> None:
        """Queries silent runs, half a minute later, and sends runs again if that is necessary."""
        self.world.clock.seconds += 30.0
        runs = [*await self._reconciler.query(), *self._reconciler.stranded()]
        await self._reconciler.resend(runs)

    async def report(self) -> None:
        """Publishes all news."""
        await self.desk.reporter.flush()

    async def check(self) -> None:
        """Sends STOP, PAUSE and RESUME, gives up runs that were to be stopped, and carries out changes."""
        await self.desk.suspension.check()
        await self.desk.limits.check()
        await self.desk.services.settling.look()
        for live in self.desk.ledger.experiments():
            await self.desk.services.executor.finish(live)
        await self.desk.services.executor.publisher.publish()

    async def steer(self, verb: str, experiment_id: str, **request: Any) -> None:
        """Sends a request for a change."""
        body = orjson.dumps({"experiment_id": experiment_id, **request})
        with contextlib.suppress(errors.NotFound, errors.RequestRefused):
            await self.control.handlers()[verb](body)
