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
from ems_worker.core.wire import Message, Start
from tests.support import evidence, oracle, whole
from tests.support.desk import CREATED_NS, Broker, Clock, Desk
from tests.support.evidence import Evidence


class DiedError(Exception):
    """The worker died at a named point."""


@dataclass
class World:
    """`hiccups` are the next answers to start calls, from the end: a code, or "LOST" for an answer that gets lost."""

    failures: oracle.Failures
    clock: Clock = field(default_factory=Clock)
    broker: Broker = field(default_factory=Broker)
    plans: list[Message] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    # The orchestrator's runs: the digest of each configuration, and whether the run has ended.
    runs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    hiccups: list[str] = field(default_factory=list)
    # After this many more named points the worker dies; None: it lives.
    points_left: int | None = None
    manifest: Path = Path()

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
        answers = []
        for command in commands:
            name = command.simulation_id
            assert (name, command.config_sha) in recorded, f"{name} was sent before it was recorded"
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

    @property
    def running(self) -> list[str]:
        return [name for name, (_, ended) in self.runs.items() if not ended]

    def begin(self, name: str) -> None:
        """Starts a run, with its event."""
        self._emit("sim.run_started", {"simulation_id": name})

    def end(self, name: str) -> None:
        """Ends a run, with the result that its id has in `failures`."""
        self.runs[name] = self.runs[name][0], True
        self.calls.append(["ended", name])
        result = self.failures.outcome(name)
        if result.error_kind is None:
            self._emit("sim.run_completed", {"simulation_id": name, "metrics": result.metrics})
        else:
            self._emit("sim.run_failed", {"simulation_id": name, "error_kind": result.error_kind.value})

    def wipe(self) -> None:
        """Makes the orchestrator forget all runs: those sent from now on are new to it."""
        self.runs.clear()
        self.calls = [call for call in self.calls if call[0] == "ended"]

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """Answers GetSimulationStatus."""
        statuses: dict[str, Signal | None] = dict.fromkeys(simulation_ids)
        for name in simulation_ids:
            if name not in self.runs:
                continue
            result = self.failures.outcome(name)
            if not self.runs[name][1]:
                statuses[name] = Signal(RunEvent.START)
            elif result.error_kind is None:
                statuses[name] = Signal(RunEvent.COMPLETE, metrics=result.metrics)
            else:
                event = {"simulation_id": name, "error_kind": result.error_kind.value}
                statuses[name] = event_codec.decode("sim.run_failed", orjson.dumps(event))[1]
        return statuses

    def _emit(self, subject: str, body: Mapping[str, Any]) -> None:
        # Sequences differ from those of plans, because one list has the acknowledgements of both.
        data, seq = orjson.dumps(body), 1_000_000 + len(self.events)
        self.events.append(Message("SIM_EVENTS", CREATED_NS, seq, subject, data, {}, 1, 0, "token"))

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
            life = cls(world, desk)
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

    async def retry(self, experiment_id: str, request_id: str) -> None:
        """Sends a retry request."""
        body = orjson.dumps({"request_id": request_id, "experiment_id": experiment_id})
        with contextlib.suppress(errors.NotFound):
            await self.control.handlers()["retry"](body)
