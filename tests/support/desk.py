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
from ems_worker.adapters import event_codec, yaml_reader
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.access.quotas import Quotas
from ems_worker.core.access.rate import Rates
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome
from ems_worker.core.lifecycle.run import Run, Signal
from ems_worker.core.records import Experiment, JobRow
from ems_worker.core.wire import Capacity, Message, Start, StreamIdentity
from ems_worker.reading import Examiner
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.base.replies import Replies
from ems_worker.service.base.versions import Versions
from ems_worker.service.dispatch import Dispatcher
from ems_worker.service.expand import Expander
from ems_worker.service.intake import check
from ems_worker.service.intake.accept import Intake
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live, RunKey
from ems_worker.service.limits import Limits
from ems_worker.service.reasons import Reasons
from ems_worker.service.recovery import recover
from ems_worker.service.report import Reporter
from ems_worker.service.submit import Submitter
from ems_worker.service.track import Tracker

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

    @property
    def message_limit(self) -> int:
        return 4 * 1024 * 1024

    async def capacity(self) -> AsyncIterator[Capacity | None]:
        while True:
            yield await self.told.get()

    @property
    def sent(self) -> list[str]:
        """Every simulation id in the order of its commands."""
        return [command.simulation_id for call in self.calls for command in call]


class Desk:
    """One worker's services. `Desk.open` on the same directory again is the worker after a restart, or a crash."""

    def __init__(self, manifest: Manifest, clock: Clock, **options: Any) -> None:
        self.manifest = manifest
        self.clock = clock
        self.metrics = Metrics()
        self.broker: Broker = options.pop("broker", None) or Broker()
        self.orchestrator = Orchestrator()
        self.told: list[int] = []
        self.files: list[str] = []
        self._seqs = itertools.count(1)
        self.ledger = Ledger(manifest, clock, self._load, self._changed, on_end=self._ended)
        self.versions = Versions()
        self.submitter = Submitter(
            self.ledger,
            manifest,
            self.orchestrator,
            clock,
            self.metrics,
            on_relief=self._relieved,
            versions=self.versions,
        )
        self.dispatcher = Dispatcher(
            self.ledger,
            manifest,
            self.orchestrator,
            self.submitter,
            clock,
            self.metrics,
            options.pop("window", 100),
            versions=self.versions,
        )
        self.dispatcher.caught_up(False)
        self.can_ask = True
        self.expander = Expander(self.ledger, manifest, self.metrics, on_jobs=self.dispatcher.wake)
        self.limits = Limits(
            self.ledger,
            self.orchestrator,
            clock,
            self.metrics,
            run_timeout_seconds=options.pop("run_timeout_seconds", None),
            stop_confirm_seconds=30.0,
            can_ask=lambda: self.can_ask,
        )
        self.reasons = Reasons()
        self.reasons.add(lambda _: self.submitter.reach.trouble)
        self.reasons.add(lambda _: self.dispatcher.paused)
        self.reasons.add(lambda live: self.versions.waiting(live.plan))
        self.reasons.add(self.submitter.reach.waits)
        self.reporter = Reporter(
            self.ledger,
            manifest,
            self.broker,
            clock,
            self.metrics,
            worker_id="w1",
            interval_seconds=0.0,
            reasons=self.reasons,
            leave_manifest=self._leave,
        )
        self.tracker = Tracker(
            self.ledger,
            manifest,
            self.broker,
            event_codec.decode,
            clock,
            self.metrics,
            keep=options.pop("keep", 100),
            on_backlog=lambda _: None,
        )
        most_bytes = options.pop("max_bytes", 1_000_000)
        self.examiner = Examiner(
            options.pop("read_base", check.refuse_base), most_bytes, options.pop("max_jobs", 100_000)
        )
        self.intake = Intake(
            manifest,
            self.broker,
            self.examiner,
            clock,
            self.metrics,
            Replies(options.pop("reply_prefixes", ("_INBOX.",)), "_INBOX.worker", self.metrics),
            self._accepted,
            most_bytes,
            rates=options.pop("rates", Rates()),
            quotas=options.pop("quotas", Quotas()),
            message_limit=options.pop("message_limit", lambda: None),
            versions=self.versions,
        )
        assert not options, f"no such options: {options}"

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, directory: Path, clock: Clock | None = None, **options: Any) -> AsyncIterator["Desk"]:
        """With what an earlier one left in the directory taken up; `unsent` is what recovery wants sent again."""
        async with Manifest.open(directory / "manifest.db") as manifest:
            desk = cls(manifest, clock or Clock(), **options)
            desk.unsent = await recover.recover(desk.ledger, manifest, yaml_reader)
            yield desk

    unsent: Sequence[tuple[Live, Any]] = ()

    async def _load(self, record: Experiment) -> Live:
        return await recover.load(record, self.manifest, yaml_reader)

    def _changed(self, key: int) -> None:
        self.told.append(key)
        self.reporter.tell(key)
        self.dispatcher.wake()

    def _ended(self, key: RunKey, one: Run) -> None:
        self.dispatcher.ended(key, one)

    def _relieved(self) -> None:
        self.dispatcher.wake()

    async def _accepted(self, record: Experiment) -> None:
        self.ledger.admit(await self._load(record))
        self._changed(record.key)

    async def _leave(self, live: Live) -> None:
        self.files.append(live.experiment_id)

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
        """Has the reporter tell what is new; the last status."""
        self.reporter.look()
        while (live := self.ledger.live(experiment_id)) is not None and live.key in self.reporter._news:
            self.reporter._news.discard(live.key)
            await self.reporter.report(live)
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
