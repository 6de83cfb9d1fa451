"""What is around a worker, played in memory: plan stream, orchestrator, bus. It outlives the worker's deaths.

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
from ems_worker.core.lifecycle.outcome import Answer, Call, outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.wire import Message, Start
from tests.support import evidence, oracle, whole
from tests.support.desk import CREATED_NS, Broker, Clock, Desk
from tests.support.evidence import Evidence


class DiedError(Exception):
    """The worker's life ended at a named point."""


@dataclass
class World:
    """`hiccups` are the next answers to start calls: a code instead of one, "LOST" for one that got lost."""

    failures: oracle.Failures
    clock: Clock = field(default_factory=Clock)
    broker: Broker = field(default_factory=Broker)
    plans: list[Message] = field(default_factory=list)
    events: list[Message] = field(default_factory=list)
    # The orchestrator's runs: identity, and whether they have ended.
    runs: dict[str, tuple[str, bool]] = field(default_factory=dict)
    calls: list[list[str]] = field(default_factory=list)
    hiccups: list[str] = field(default_factory=list)
    # After so many more named points the worker dies; None: it lives.
    points_left: int | None = None
    manifest: Path = Path()

    def point(self, name: str, about: str = "") -> None:
        """In place of `crash.point`."""
        if self.points_left is not None:
            self.points_left -= 1
            if self.points_left <= 0:
                self.points_left = None
                raise DiedError(name)

    def publish(self, plan: Mapping[str, Any]) -> None:
        """A plan that its publisher has an ack for."""
        data, seq = orjson.dumps(plan), len(self.plans) + 1
        self.plans.append(Message("EMS_PLANS", CREATED_NS, seq, "ems.experiment.submit", data, {}, 1, 0, "token"))

    @property
    def unacked(self) -> list[Message]:
        """Plan messages that will be delivered again."""
        return [message for message in self.plans if message.seq not in self.broker.acked]

    async def start(self, starts: Sequence[Start], tell: Callable[[Call], None]) -> None:
        """The orchestrator's side of a start call, idempotent as the contract says."""
        began = asyncio.get_running_loop().time()
        tell(Call(began, 0.0, tuple(self._answers(starts))))

    def _answers(self, commands: Sequence[Start]) -> Sequence[Answer]:
        hiccup = self.hiccups.pop() if self.hiccups else "OK"
        if hiccup not in ("OK", "LOST"):
            return [Answer(one.simulation_id, outcome(hiccup), hiccup, "words") for one in commands]
        recorded = set(
            whole.rows(self.manifest, "SELECT simulation_id, config_sha FROM v_runs WHERE state <> 'pending'")
        )
        answers = []
        for one in commands:
            name = one.simulation_id
            assert (name, one.config_sha) in recorded, f"{name} was announced before it was recorded"
            code = "ALREADY_EXISTS" if name in self.runs else "OK"
            if self.runs.setdefault(name, (one.config_sha, False))[0] != one.config_sha:
                code = "FAILED_PRECONDITION"
            word = {"OK": "accepted", "ALREADY_EXISTS": "duplicate"}.get(code, "conflict")
            self.calls.append([word, name, one.config_sha])
            answers.append(Answer(name, outcome(code), code))
        if hiccup == "LOST":
            return [Answer(one.simulation_id, outcome("DEADLINE_EXCEEDED"), "DEADLINE_EXCEEDED") for one in commands]
        return answers

    @property
    def running(self) -> list[str]:
        return [name for name, (_, ended) in self.runs.items() if not ended]

    def begin(self, name: str) -> None:
        """A run tells that it started."""
        self._say("sim.run_started", {"simulation_id": name})

    def end(self, name: str) -> None:
        """A run ends, as its name says."""
        self.runs[name] = self.runs[name][0], True
        self.calls.append(["ended", name])
        result = self.failures.outcome(name)
        if result.error_kind is None:
            self._say("sim.run_completed", {"simulation_id": name, "metrics": result.metrics})
        else:
            self._say("sim.run_failed", {"simulation_id": name, "error_kind": result.error_kind.value})

    def wipe(self) -> None:
        """The orchestrator forgets everything; what it takes on from now on is new to it."""
        self.runs.clear()
        self.calls = [words for words in self.calls if words[0] == "ended"]

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        """What the orchestrator says of runs."""
        found: dict[str, Signal | None] = dict.fromkeys(simulation_ids)
        for name in simulation_ids:
            if name not in self.runs:
                continue
            result = self.failures.outcome(name)
            if not self.runs[name][1]:
                found[name] = Signal(RunEvent.START)
            elif result.error_kind is None:
                found[name] = Signal(RunEvent.COMPLETE, metrics=result.metrics)
            else:
                event = {"simulation_id": name, "error_kind": result.error_kind.value}
                found[name] = event_codec.decode("sim.run_failed", orjson.dumps(event))[1]
        return found

    def _say(self, subject: str, body: Mapping[str, Any]) -> None:
        # Other numbers than those of plans: one list has the acks of both.
        data, seq = orjson.dumps(body), 1_000_000 + len(self.events)
        self.events.append(Message("SIM_EVENTS", CREATED_NS, seq, subject, data, {}, 1, 0, "token"))

    def evidence(self, manifest: Path) -> Evidence:
        """What there is now, inside and outside."""
        last: dict[str, Mapping[str, Any]] = {}
        for document in self.broker.statuses:
            if document["revision"] > last.get(document["experiment_id"], {"revision": 0})["revision"]:
                last[document["experiment_id"]] = document
        return replace(
            evidence.local(manifest, manifest.with_name("none")),
            calls=[list(words) for words in self.calls],
            acked={message.seq: orjson.loads(message.data) for message in self.plans},
            decisions={one["submission"]["seq"]: one for one in self.broker.of("decision")},
            last_status=last,
            results=self.broker.of("result"),
            dead=[evidence.Stored(seq, kind, {}) for kind, seq, _ in self.broker.dead],
        )


class Life:
    """One worker's life in a world, from its start to its end or death."""

    def __init__(self, world: World, desk: Desk) -> None:
        self.world = world
        self.desk = desk
        self.control = desk.services.control
        self._reconciler = desk.services.reconciler

    @classmethod
    @contextlib.asynccontextmanager
    async def begun(cls, world: World, directory: Path, window: int) -> AsyncIterator["Life"]:
        """With what the one before left taken up, as the daemon does it."""
        async with Desk.open(directory, world.clock, broker=world.broker, run_window=window) as desk:
            world.manifest = directory / "manifest.db"
            desk.orchestrator.start = world.start  # type: ignore[method-assign] # the world answers
            desk.orchestrator.status = world.status  # type: ignore[method-assign]
            life = cls(world, desk)
            await life.control.finish()
            for live in desk.ledger.experiments():
                desk.reporter.notify(live.key)
            await desk.submitter.resend(desk.unsent)
            await desk.intake.publish_decisions()
            yield life

    async def take_plans(self) -> None:
        """Everything that isn't acknowledged, in the order of the stream."""
        await self.desk.intake.take_again(self.world.unacked)

    async def expand(self) -> None:
        """The next chunk of what is not expanded, or has not begun."""
        for live in self.desk.ledger.experiments():
            if live.expands:
                await self.desk.expander.expand(live)

    async def dispatch(self) -> None:
        """As many runs as the window has room for, on their way and answered."""
        try:
            async with asyncio.TaskGroup() as group:
                while await self.desk.dispatcher.fill(group):
                    pass
        except BaseExceptionGroup as found:
            if died := found.subgroup(DiedError):
                raise DiedError("dispatch") from died
            raise

    async def track(self, messages: Sequence[Message]) -> None:
        """These events, in this order."""
        await self.desk.tracker.track(messages)

    async def retry_parked(self) -> None:
        """What was parked, once more."""
        await self.desk.tracker.retry_parked(0)

    async def reconcile(self) -> None:
        """A look at the silent, half a minute after the last, and what follows from it."""
        self.world.clock.seconds += 30.0
        again = [*await self._reconciler.look(), *self._reconciler.stranded()]
        await self._reconciler.send_again(again)

    async def report(self) -> None:
        """All that is new."""
        await self.desk.reporter.flush()

    async def retry(self, experiment_id: str, request_id: str) -> None:
        """Somebody asks for another try of what failed."""
        body = orjson.dumps({"request_id": request_id, "experiment_id": experiment_id})
        with contextlib.suppress(errors.NotFound):
            await self.control.handlers()["retry"](body)
