"""The services in one process on a real manifest, driven step by step: broker, orchestrator and clock are played.

What a test plays here is what no real server can be made to do on demand: an answer at a given moment, a lost one, a
crash between two steps.
"""

import asyncio
import contextlib
import itertools
import json
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ems_worker import errors
from ems_worker.adapters import files, yaml_reader
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome
from ems_worker.core.lifecycle.run import Signal
from ems_worker.core.records import JobRow
from ems_worker.core.wire import Capacity, Message, Start, StreamIdentity
from ems_worker.daemon import services
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.health import Health
from ems_worker.service.intake import check
from ems_worker.service.ledger.live import Live
from ems_worker.service.recovery import recover
from ems_worker.settings import Settings

CREATED_NS = 1_750_000_000_000_000_000
START_MS = 1_760_000_000_000


@dataclass
class Clock:
    """Time moves when a test says so; `set_by`: by how many seconds somebody has set the wall clock."""

    seconds: float = 1000.0
    set_by: float = 0.0

    def now_ms(self) -> int:
        return START_MS + round(1000 * (self.seconds + self.set_by))

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class Broker:
    """Remembers what it was given; `refuse`, where set, is raised instead of publishing a subject that it names."""

    acked: list[int] = field(default_factory=list)
    dead: list[tuple[str, int, str]] = field(default_factory=list)
    published: list[tuple[str, dict[str, Any], str]] = field(default_factory=list)
    statuses: list[dict[str, Any]] = field(default_factory=list)
    replies: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    refuse: Callable[[str], errors.EmsError | None] = lambda _: None
    connected: bool = True
    inbox: str = "_INBOX.worker"
    refused: str | None = None
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
        raise AssertionError("nothing is restored")

    async def published_revision(self, subject: str) -> int | None:
        return None

    async def plan_object(self, name: str, most_bytes: int) -> bytes:
        raise errors.NotFound(f"there is no object {name}")

    async def plans(self) -> Sequence[Message]:
        return await self.waiting.get()

    async def events(self, seconds: float = 1.0) -> Sequence[Message]:
        return await self.waiting.get()

    async def ack(self, messages: Sequence[Message]) -> None:
        self.acked += [message.seq for message in messages]

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        raise AssertionError("nothing is asked for later")

    async def working(self, messages: Sequence[Message]) -> None:
        raise AssertionError("nothing takes that long")

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
        """Published documents of this kind: result, point, decision."""
        return [document for subject, document, _ in self.published if subject.startswith(f"ems.experiment.{kind}.")]


@dataclass
class Orchestrator:
    """Answers start commands by `answers`, a gRPC code's name for each simulation id in turn; else by `code`.

    Those that are `hung` are late until their event is set.
    """

    code: str = "OK"
    stop_code: str = "OK"
    answers: dict[str, deque[str]] = field(default_factory=dict)
    hung: dict[str, asyncio.Event] = field(default_factory=dict)
    calls: list[list[Start]] = field(default_factory=list)
    stops: list[str] = field(default_factory=list)
    known: Mapping[str, Signal | None] | None = None
    is_ready: bool = True
    rpc_window: int = 64
    message_limit: int = 4 * 1024 * 1024
    crowded: bool = False
    told: "asyncio.Queue[Capacity | None]" = field(default_factory=asyncio.Queue)
    on_start: Callable[[Sequence[Start]], None] = lambda _: None

    async def start(self, starts: Sequence[Start], tell: Callable[[Call], None]) -> None:
        began = asyncio.get_running_loop().time()
        self.calls.append(list(starts))
        self.on_start(starts)
        names = [start.simulation_id for start in starts]
        if at_once := tuple(self._answer(name) for name in names if name not in self.hung):
            tell(Call(began, 0.0, at_once))
        for name in self.hung.keys() & set(names):
            tell(Call(began, 1.0, (Answer(name, Outcome.LATE, ""),)))
            await self.hung[name].wait()
            tell(Call(began, 10.0, (self._answer(name),)))

    def _answer(self, name: str) -> Answer:
        turns = self.answers.get(name)
        code = turns.popleft() if turns else self.code
        return Answer(name, outcome(code), code, "" if outcome(code) is Outcome.SUBMITTED else "words of it")

    async def stop(self, simulation_id: str) -> str:
        self.stops.append(simulation_id)
        return self.stop_code

    async def status(self, simulation_ids: Sequence[str]) -> Mapping[str, Signal | None] | None:
        return self.known

    def ready(self) -> bool:
        return self.is_ready

    @property
    def away(self) -> str | None:
        return None if self.is_ready else "127.0.0.1:50051: connection refused"

    async def capacity(self) -> AsyncIterator[Capacity | None]:
        while True:
            yield await self.told.get()

    @property
    def sent(self) -> list[str]:
        """Every simulation id in the order of its commands."""
        return [command.simulation_id for call in self.calls for command in call]


class Desk:
    """The services of one worker. `Desk.open` on the same directory is the same worker after a restart, or a crash."""

    def __init__(
        self, directory: Path, manifest: Manifest, clock: Clock, broker: Broker | None = None, **settings: Any
    ) -> None:
        """`settings` are changes to those below."""
        self.manifest = manifest
        self.clock = clock
        self.metrics = Metrics()
        self.broker = broker or Broker()
        self.orchestrator = Orchestrator()
        self.health = Health(clock, self.metrics.trouble)
        self.settings = _settings(directory, **settings)
        root = self.settings.base_config_root
        self.services = services.build(
            settings=self.settings,
            manifest=manifest,
            broker=self.broker,
            orchestrator=self.orchestrator,
            clock=clock,
            metrics=self.metrics,
            health=self.health,
            read_base=check.refuse_base if root is None else files.BaseFiles(root).read,
        )
        self.ledger = self.services.ledger
        self.versions = self.services.versions
        self.submitter = self.services.submitter
        self.dispatcher = self.services.dispatcher
        self.expander = self.services.expander
        self.limits = self.services.limits
        self.reporter = self.services.reporter
        self.tracker = self.services.tracker
        self.intake = self.services.intake
        # No events wait at the start.
        self.dispatcher.set_behind(False)
        self._seqs = itertools.count(1)

    @classmethod
    @contextlib.asynccontextmanager
    async def open(
        cls, directory: Path, clock: Clock | None = None, broker: Broker | None = None, **settings: Any
    ) -> AsyncIterator["Desk"]:
        """Loads what an earlier worker left in the directory; recovery wants the `unsent` runs sent again."""
        async with Manifest.open(directory / "manifest.db") as manifest:
            desk = cls(directory, manifest, clock or Clock(), broker, **settings)
            desk.unsent = await recover.recover(desk.ledger, manifest, yaml_reader)
            yield desk

    unsent: Sequence[tuple[Live, Any]] = ()

    @property
    def files(self) -> list[str]:
        """The experiments whose manifest files were written."""
        suffix = ".manifest.jsonl"
        return sorted(path.name.removesuffix(suffix) for path in self.settings.exports.glob(f"*{suffix}"))

    def message(self, subject: str, data: bytes | Mapping[str, Any], **changes: Any) -> Message:
        """As the broker would deliver it; the next sequence number unless `seq` is given."""
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        plain = Message("STREAM", CREATED_NS, 0, subject, body, {}, 1, self.clock.now_ms(), "token")
        changes.setdefault("seq", next(self._seqs))
        return replace(plain, **changes)

    async def submit(self, plan: bytes | Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Takes a plan message; the decision as published."""
        await self.intake.take(self.message("ems.experiment.submit", plan, **changes))
        return self.broker.of("decision")[-1]

    async def begin(self, plan: Mapping[str, Any]) -> Live:
        """An experiment accepted and expanded."""
        decision = await self.submit(plan)
        assert decision["decision"] == "accepted", decision
        live = self.ledger.live(decision["experiment_id"])
        assert live is not None
        while not live.expanded:
            await self.expander.expand(live)
        return live

    async def launch(self, live: Live, limit: int = 1000) -> list[str]:
        """Claims due runs and has them submitted; their simulation ids."""
        before = len(self.orchestrator.sent)
        claimed = await self.ledger.claim(live.key, limit)
        await self.submitter.submit([(live, run, point) for run, point in claimed])
        return self.orchestrator.sent[before:]

    async def hear(self, kind: str, simulation_id: str, **content: Any) -> None:
        """A run event in JSON: started, completed or failed."""
        event = {"simulation_id": simulation_id, **content}
        await self.tracker.track([self.message(f"sim.run_{kind}", event)])

    async def report(self, experiment_id: str) -> dict[str, Any]:
        """Publishes what is new of the experiment; the last status."""
        self.reporter.look()
        while (live := self.ledger.live(experiment_id)) is not None and self.reporter.has_news(live.key):
            await self.reporter.report_news(live)
        return self.broker.statuses[-1]

    async def row(self, simulation_id: str) -> JobRow:
        """The attempt of this name in the manifest."""
        for row in await self.rows(simulation_id.rpartition("-p")[0]):
            name = f"-p{row.run.point:06d}-r{row.run.replicate:03d}-a{row.run.attempt}"
            if simulation_id.endswith(name):
                return row
        raise AssertionError(f"the manifest has no {simulation_id}")

    async def rows(self, experiment_id: str) -> Sequence[JobRow]:
        """All attempts in the manifest."""
        record = await self.manifest.experiment(experiment_id)
        assert record is not None
        return await self.manifest.jobs_page(record.key, (-1, -1, -1), 10_000, attempts=True)

    def count(self, name: str, **labels: str) -> float:
        """A metric's value."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def _settings(directory: Path, **changes: Any) -> Settings:
    ours: dict[str, Any] = {
        "data_dir": directory,
        "worker_id": "w1",
        "run_window": 100,
        "plans_per_minute": None,
        "plans_per_minute_total": None,
        "max_jobs": 100_000,
        "max_plan_bytes": 1_000_000,
    }
    settings = Settings(**ours | changes)
    # Statuses follow each other without a pause, which no setting allows.
    return settings.model_copy(update={"status_interval_seconds": 0.0})


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Work that goes on for ever, for the time of the block; what it raises is raised here."""
    task = asyncio.create_task(work)
    try:
        yield
        if task.done():
            await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def plan(experiment_id: str = "reef", *, points: int = 2, replicates: int = 1, **more: Any) -> dict[str, Any]:
    """A plan of that many points, each with a `food` of its own."""
    return {
        "experiment_id": experiment_id,
        "base_config": {"food": 1, "heat": 1.5, "name": "base"},
        "parameter_space": {"food": list(range(points))},
        "num_replicates_per_run": replicates,
        "metrics_to_track": [{"name": "population", "goal": "maximize"}],
        **more,
    }
