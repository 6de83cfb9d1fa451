"""The services of a worker in one process on a real manifest, driven step by step.

The broker, the orchestrator and the clock around them are played (`played.py`): a test decides what happens when.
"""

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ems_worker.adapters import files, yaml_reader
from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.records import JobRow, PointRecord
from ems_worker.core.wire import Message
from ems_worker.daemon import services
from ems_worker.service.base.metrics import Metrics
from ems_worker.service.health import Health
from ems_worker.service.intake import check
from ems_worker.service.ledger.live import Live
from ems_worker.service.reach import Claimed
from ems_worker.service.recovery import recover
from ems_worker.settings import Settings
from tests.support import wait
from tests.support.played import CREATED_NS, Broker, Clock, Orchestrator

__all__ = ["CREATED_NS", "Broker", "Clock", "Desk", "Orchestrator", "background", "plan", "quiet"]


class Desk:
    """The services of a worker. Opening the same directory again is a restart of the worker, possibly after a crash."""

    def __init__(
        self, directory: Path, manifest: Manifest, clock: Clock, broker: Broker | None = None, **settings: Any
    ) -> None:
        """`settings` override the defaults of tests."""
        self.manifest = manifest
        self.clock = clock
        self.metrics = Metrics()
        self.broker = broker or Broker()
        self.orchestrator = Orchestrator()
        self.health = Health(clock, self.metrics.problem)
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
        self.suspension = self.services.suspension
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
        """Recovers what an earlier worker left in the directory; `unsent` are the runs that have to be sent again."""
        async with Manifest.open(directory / "manifest.db") as manifest:
            desk = cls(directory, manifest, clock or Clock(), broker, **settings)
            desk.unsent = await recover.recover(desk.ledger, manifest, yaml_reader)
            await desk.suspension.recover()
            yield desk

    unsent: Sequence[tuple[Live, Any]] = ()

    @property
    def files(self) -> list[str]:
        """The ids of the experiments whose manifest files were written."""
        suffix = ".manifest.jsonl"
        return sorted(path.name.removesuffix(suffix) for path in self.settings.exports.glob(f"*{suffix}"))

    def message(self, subject: str, data: bytes | Mapping[str, Any], **changes: Any) -> Message:
        """A message as the broker delivers it, with the next sequence number unless `seq` is given."""
        body = data if isinstance(data, bytes) else json.dumps(data).encode()
        plain = Message("STREAM", CREATED_NS, 0, subject, body, {}, 1, self.clock.now_ms(), "token")
        changes.setdefault("seq", next(self._seqs))
        return replace(plain, **changes)

    async def submit(self, plan: bytes | Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """Handles a plan message; returns the published decision."""
        await self.intake.take(self.message("ems.experiment.submit", plan, **changes))
        return self.broker.of("decision")[-1]

    async def begin(self, plan: Mapping[str, Any]) -> Live:
        """Submits and expands an experiment."""
        decision = await self.submit(plan)
        assert decision["decision"] == "accepted", decision
        live = self.ledger.live(decision["experiment_id"])
        assert live is not None
        while not live.expanded:
            await self.expander.expand(live)
        return live

    async def claim(self, live: Live, limit: int) -> Sequence[tuple[Run, PointRecord]]:
        """Claims due runs of the experiment."""
        return [(run, point) for _, run, point in await self.ledger.claims.claim({live.key: limit})]

    async def launch(self, live: Live, limit: int = 1000) -> list[str]:
        """Claims due runs and submits them; returns their simulation ids."""
        before = len(self.orchestrator.sent)
        claimed = await self.claim(live, limit)
        await self.submitter.submit([Claimed.of(live, run, point) for run, point in claimed])
        return self.orchestrator.sent[before:]

    async def hear(self, kind: str, simulation_id: str, **content: Any) -> None:
        """Delivers a run event in JSON: started, completed, failed or metrics."""
        event = {"simulation_id": simulation_id, **content}
        await self.tracker.track([self.message(f"sim.run_{kind}", event)])

    async def complete(self, simulation_ids: Sequence[str], populations: Sequence[float]) -> None:
        """Delivers a `completed` event for each run, with its value of the metric `population`."""
        for simulation_id, population in zip(simulation_ids, populations, strict=True):
            await self.hear("completed", simulation_id, metrics={"population": population})

    async def report(self, experiment_id: str) -> dict[str, Any]:
        """Publishes the news of the experiment; returns the last status of any experiment."""
        self.reporter.look()
        while (live := self.ledger.live(experiment_id)) is not None and self.reporter.has_news(live.key):
            await self.reporter.report_news(live)
        return self.broker.statuses[-1]

    async def steer(self, verb: str, experiment_id: str = "reef", **request: Any) -> dict[str, Any]:
        """Requests a change as a client does; returns the document of the reply. Each request has an id of its own."""
        request.setdefault("request_id", f"request-{next(self._seqs)}")
        named = {} if "group" in request else {"experiment_id": experiment_id}
        body = json.dumps({**named, **request}).encode()
        document: dict[str, Any] = json.loads(await self.services.control.handlers()[verb](body))
        return document

    async def row(self, simulation_id: str) -> JobRow:
        """The attempt with this simulation id in the manifest."""
        await self.ledger.flush()
        for row in await self.rows(simulation_id.rpartition("-p")[0]):
            name = f"-p{row.run.point:06d}-r{row.run.replicate:03d}-a{row.run.attempt}"
            if simulation_id.endswith(name):
                return row
        raise AssertionError(f"the manifest has no {simulation_id}")

    async def rows(self, experiment_id: str) -> Sequence[JobRow]:
        """All attempts of the experiment in the manifest."""
        await self.ledger.flush()
        record = await self.manifest.experiment(experiment_id)
        assert record is not None
        return await self.manifest.jobs_page(record.key, (-1, -1, -1), 10_000, attempts=True)

    def count(self, name: str, **labels: str) -> float:
        """The value of a metric."""
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def _settings(directory: Path, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "data_dir": directory,
        "worker_id": "w1",
        "run_window": 100,
        "plans_per_minute": None,
        "plans_per_minute_total": None,
        "max_jobs": 100_000,
        "max_plan_bytes": 1_000_000,
    }
    settings = Settings(**defaults | changes)
    # Statuses follow each other without a pause, which the settings don't allow.
    return settings.model_copy(update={"status_interval_seconds": 0.0})


@contextlib.asynccontextmanager
async def background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs work without end during the block; its error is raised here."""
    task = asyncio.create_task(work)
    try:
        yield
        if task.done():
            await task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def quiet(desk: Desk) -> None:
    """Returns when the dispatcher, which runs in the background, has nothing left to do."""
    await wait.until(lambda: desk.dispatcher.idle and not desk.submitter.sending)


def plan(experiment_id: str = "reef", *, points: int = 2, replicates: int = 1, **more: Any) -> dict[str, Any]:
    """A plan with this many points, each with another value of `food`."""
    return {
        "experiment_id": experiment_id,
        "base_config": {"food": 1, "heat": 1.5, "name": "base"},
        "parameter_space": {"food": list(range(points))},
        "num_replicates_per_run": replicates,
        "metrics_to_track": [{"name": "population", "goal": "maximize"}],
        **more,
    }
