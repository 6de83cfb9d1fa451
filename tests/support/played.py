"""The broker, the orchestrator and the clock around the services, simulated in memory.

They do what a real server can't be made to do on demand, such as answering at a given moment, or losing an answer.
"""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ems_worker import errors
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.wire import (
    Capacity,
    Control,
    Controlled,
    Message,
    PublishedChange,
    PublishedResult,
    PublishedRound,
    Start,
    StreamIdentity,
)

CREATED_NS = 1_750_000_000_000_000_000
START_MS = 1_760_000_000_000


@dataclass
class Clock:
    """A clock that only the test advances. `set_by` is the number of seconds by which the wall clock was adjusted."""

    seconds: float = 1000.0
    set_by: float = 0.0

    def now_ms(self) -> int:
        return START_MS + round(1000 * (self.seconds + self.set_by))

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Broker:
    """Records all calls. `refuse` returns the error that publishing to a subject raises, or None."""

    acked: list[int] = field(default_factory=list)
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    published: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    replies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuse: Callable[[str], errors.EmsError | None] = lambda _: None
    connected: bool = True
    inbox: str = "_INBOX.worker"
    refused: str | None = None
    max_document_bytes: int = 1_000_000
    waiting: "asyncio.Queue[Sequence[Message]]" = field(default_factory=asyncio.Queue)

    async def streams(self) -> Mapping[str, StreamIdentity]:
        return {}

    async def positions(self) -> tuple[int, int]:
        return 0, 0

    async def pending(self) -> tuple[int, int]:
        return 0, 0

    async def has_decision(self, seq: int) -> bool:
        return False

    async def rewind(self, plans: int, events: int) -> None:
        raise AssertionError("unexpected: a manifest is restored")

    async def settled_round(self, experiment_id: str, since_ms: int) -> int | None:
        rounds = [found["round"] for found in self.of("settled") if found["experiment_id"] == experiment_id]
        return rounds[-1] if rounds else None

    async def changes(self, after_seq: int) -> Sequence[PublishedChange]:
        return ()

    async def rounds(self, after_seq: int) -> Sequence[PublishedRound]:
        return ()

    async def results(self, after_seq: int) -> AsyncIterator[PublishedResult]:
        for document in self.of("result"):
            yield PublishedResult(
                document["simulation_id"], document["job_revision"], document["state"], document["excluded"]
            )

    async def published_revision(self, subject: str) -> int | None:
        return None

    async def plan_object(self, name: str, max_bytes: int) -> bytes:
        raise errors.NotFound(f"there is no object {name}")

    async def plans(self) -> Sequence[Message]:
        return await self.waiting.get()

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        return await self.waiting.get()

    async def ack(self, messages: Sequence[Message]) -> None:
        self.acked += [message.seq for message in messages]

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        raise AssertionError("unexpected: a message is to be redelivered")

    async def working(self, messages: Sequence[Message]) -> None:
        raise AssertionError("unexpected: a message takes long")

    async def dead_letter(self, message: Message, reason: str, kind: str) -> None:
        self.dead.append((kind, message.seq, reason))
        self.acked.append(message.seq)

    async def publish(self, items: Sequence[tuple[str, bytes, str]], traceparent: str | None = None) -> None:
        for subject, data, name in items:
            if (error := self.refuse(subject)) is not None:
                raise error
            self.published.append((subject, json.loads(data), name))

    async def publish_latest(self, subject: str, data: bytes, revision: int) -> bool:
        if (error := self.refuse(subject)) is not None:
            raise error
        document = json.loads(data)
        assert document["revision"] == revision
        self.statuses.append(document)
        return True

    async def reply(self, subject: str, data: bytes) -> None:
        self.replies.append((subject, json.loads(data)))

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The published documents of this kind: result, point or decision."""
        return [document for subject, document, _ in self.published if subject.startswith(f"ems.experiment.{kind}.")]


@dataclass
class Orchestrator:
    """Answers start commands with the names of gRPC codes.

    A command gets the next code of `answers` for its simulation id, or else `code`. The answer to a command in `hung`
    is late until its event is set. With `slot`, commands wait until that is set before they are sent, as they do for a
    slot in the window; `unsent` are those that were not wanted any more then. `known` is the answer to
    GetSimulationStatus. `capacities` is the queue of capacity reports.
    """

    code: str = "OK"
    stop_code: str = "OK"
    pause_code: str = "OK"
    answers: dict[str, deque[str]] = field(default_factory=dict)
    hung: dict[str, asyncio.Event] = field(default_factory=dict)
    calls: list[list[Start]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    controls: list[tuple[Control, str]] = field(default_factory=list)
    known: Mapping[str, Signal | None] | None = None
    is_ready: bool = True
    rpc_window: int = 64
    message_limit: int = 4 * 1024 * 1024
    crowded: bool = False
    capacities: "asyncio.Queue[Capacity | None]" = field(default_factory=asyncio.Queue)
    on_start: Callable[[Sequence[Start]], None] = lambda _: None
    slot: asyncio.Event | None = None
    unsent: list[str] = field(default_factory=list)

    async def start(
        self, starts: Sequence[Start], on_call: Callable[[Call], None], wanted: Callable[[str], bool]
    ) -> None:
        if self.slot is not None:
            await self.slot.wait()
        began = asyncio.get_running_loop().time()
        if unsent := [name for start in starts if not wanted(name := start.simulation_id)]:
            on_call(Call(began, 0.0, tuple(Answer(name, Outcome.UNSENT, "") for name in unsent)))
            self.unsent += unsent
            starts = [start for start in starts if start.simulation_id not in unsent]
        if not starts:
            return
        self.calls.append(list(starts))
        self.on_start(starts)
        names = [start.simulation_id for start in starts]
        if answers := tuple(self._answer(name) for name in names if name not in self.hung):
            on_call(Call(began, 0.0, answers))
        for name in self.hung.keys() & set(names):
            on_call(Call(began, 1.0, (Answer(name, Outcome.LATE, ""),)))
            await self.hung[name].wait()
            on_call(Call(began, 10.0, (self._answer(name),)))

    def _answer(self, name: str) -> Answer:
        codes = self.answers.get(name)
        code = codes.popleft() if codes else self.code
        return Answer(name, outcome(code), code, "" if outcome(code) is Outcome.SUBMITTED else "its message")

    async def control(self, simulation_id: str, action: Control) -> Controlled:
        self.controls.append((action, simulation_id))
        if action is Control.STOP:
            self.stops.append(simulation_id)
            return Controlled(self.stop_code)
        return Controlled(self.pause_code, paused=action is Control.PAUSE and self.pause_code == "OK")

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        return self.known

    def ready(self) -> bool:
        return self.is_ready

    @property
    def away(self) -> str | None:
        return None if self.is_ready else "127.0.0.1:50051: connection refused"

    async def capacity(self) -> AsyncIterator[Capacity | None]:
        while True:
            yield await self.capacities.get()

    @property
    def sent(self) -> list[str]:
        """The simulation id of every command, in order."""
        return [command.simulation_id for call in self.calls for command in call]


def capacity(slots: int, model_version: str = "") -> Capacity:
    """A report of the orchestrator's capacity."""
    return Capacity(slots, 0, model_version)
