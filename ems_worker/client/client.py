"""`EmsClient`, which other programs import and the command line uses."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Literal, Self, TypedDict, Unpack

from ems_worker import errors
from ems_worker.client import asking, bus, connection, latest, publishing, steering
from ems_worker.client.dead_letters import DeadLetters
from ems_worker.client.publishing import PubAck
from ems_worker.core.documents import subjects
from ems_worker.core.lifecycle import experiment
from ems_worker.settings import Access

Document = asking.Document

# The states of an experiment that has ended.
TERMINAL: frozenset[str] = experiment.ENDED

_DECISION = subjects.DECISION
_STATUS = subjects.STATUS
_STATUS_STREAM = subjects.STATUS_STREAM
_PLANS_STREAM = subjects.PLANS_STREAM
_API = subjects.API


class Which(TypedDict, total=False):
    """Which experiments to list: those for which everything holds that is given.

    `name`: a part of the name. `like`: the beginning of an id, or a whole name. `since_at`: RFC 3339; experiments that
    were created then or later.
    """

    group: str | None
    state: str | None
    tag: str | None
    name: str | None
    like: str | None
    since_at: str | None


class WhichJobs(TypedDict, total=False):
    """Which jobs to list: of this state, for which an expression holds, of a point or of a replicate of it."""

    state: str | None
    where: str | None
    point: int | None
    replicate: int | None


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration of a run. `config_sha` was recorded when the run was submitted; it is None before that."""

    simulation_id: str
    seed: int
    config_sha: str | None
    computed_sha: str
    content: str


class EmsClient(steering.Steering):
    """A client that is connected inside `async with`. Several tasks may share it.

    `dead_letters` are the messages that the worker could not process.

    Every call may raise errors.BrokerUnavailable. Queries may also raise errors.WorkerUnavailable (no worker is
    running), errors.NoAnswer (no answer in time), errors.NotFound and errors.RequestRefused.
    """

    def __init__(
        self,
        servers: str | Sequence[str] | Access = "nats://127.0.0.1:4222",
        *,
        connect_timeout: float = 3.0,
        request_timeout: float = 10.0,
        notice: Callable[[str], None] | None = None,
        publisher: str | None = None,
    ) -> None:
        """Creates a client; entering it connects.

        `servers` are URLs, or an `Access` with credentials or certificates. Timeouts are in seconds. `notice` is called
        with a message when the connection is lost and when it is restored. `publisher` names the sender of plans; it is
        a token of their subject. Raises errors.RequestRefused if it can't be.
        """
        publishing.subject(publisher)
        self._publisher = publisher
        link = connection.Connection(servers, timeout=connect_timeout, notice=notice or (lambda _: None))
        super().__init__(link, request_timeout)
        self.dead_letters = DeadLetters(self._connection, request_timeout)

    async def __aenter__(self) -> Self:
        await self._connection.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def publish(
        self,
        plan: bytes,
        *,
        content_type: str | None = None,
        publisher: str | None = None,
        traceparent: str | None = None,
    ) -> PubAck:
        """Publishes a plan. Returns when the broker has stored it, exactly once.

        A running worker processes it at once, otherwise the next worker that starts. A plan may have any size: if it
        doesn't fit into a message, it is compressed, and if necessary put into the object store. `publisher` replaces
        the client's; `traceparent` is passed to the plan's runs and results. Raises errors.BrokerMisconfigured if no
        stream stores plans, and errors.RequestRefused if the stream is full.
        """
        headers = {"Content-Type": content_type, "traceparent": traceparent}
        return await publishing.store(
            self._connection,
            publishing.subject(publisher or self._publisher),
            plan,
            headers={name: value for name, value in headers.items() if value is not None},
            timeout=self._request_timeout,
        )

    async def decision(self, seq: int, timeout: float) -> Document:
        """Waits for the `ems.decision.v1` on the plan with this sequence number.

        Raises errors.NoAnswer after `timeout` seconds.
        """
        try:
            async with asyncio.timeout(timeout):
                since = await self._plans_since()
                documents = latest.documents(
                    self._connection, f"{_DECISION}.{seq}", lambda document: _is_decision(document, seq), since
                )
                async with contextlib.aclosing(documents) as decisions:
                    async for document in decisions:
                        return document
        except TimeoutError as late:
            raise errors.NoAnswer(f"no worker decided on the plan within {timeout:g} s") from late
        raise AssertionError("the stream of decisions has no end")

    async def watch(self, experiment_id: str) -> AsyncGenerator[Document, None]:
        """Yields the `ems.status.v1` documents of an experiment, from the current status to the terminal status.

        Outdated revisions are dropped. Raises errors.NotFound if there is no such experiment.
        """
        asking.check_id(experiment_id)
        subject = f"{_STATUS}.{experiment_id}"
        revision = -1
        if await self._connection.last(_STATUS_STREAM, subject) is None:
            # Either it was accepted a moment ago and has no status yet, or it does not exist. Only the worker knows.
            await self.get(experiment_id)
        documents = latest.documents(self._connection, subject, lambda document: _is_status(document, experiment_id))
        async with contextlib.aclosing(documents) as statuses:
            async for document in statuses:
                if document["revision"] > revision:
                    revision = document["revision"]
                    yield document
                    if document["state"] in TERMINAL:
                        return

    async def wait(self, experiment_id: str) -> Document:
        """Waits for the terminal `ems.status.v1` of an experiment."""
        async with contextlib.aclosing(self.watch(experiment_id)) as statuses:
            async for document in statuses:
                if document["state"] in TERMINAL:
                    return document
        raise AssertionError("watch ends with a terminal status")

    async def validate(self, plan: bytes) -> Document:
        """The `ems.decision.v1` that the worker would make on a plan. Nothing is stored."""
        data = await publishing.compress_if_large(self._connection, plan)
        return await self._connection.ask(f"{_API}.validate", data, self._request_timeout)

    def experiments(self, **which: Unpack[Which]) -> AsyncGenerator[Document, None]:
        """Yields the `ems.status.v1` of every experiment, newest first."""
        return self._paged("list", "experiments", **which)

    async def get(self, experiment_id: str) -> Document:
        """The `ems.status.v1` of an experiment, with `description`, `parameters`, `plan_sha` and the latest `changes`.

        `parameters` maps names to paths.
        """
        return await self._ask("get", experiment_id=asking.check_id(experiment_id))

    def jobs(
        self, experiment_id: str, *, attempts: bool = False, **which: Unpack[WhichJobs]
    ) -> AsyncGenerator[Document, None]:
        """Yields jobs, including open ones, as `ems.result.v1`, in the order of point and replicate.

        Only those in this state, and for which the expression `where` holds. With `attempts`, yields every run of each
        job.
        """
        experiment_id = asking.check_id(experiment_id)
        return self._paged("jobs", "jobs", experiment_id=experiment_id, attempts=attempts or None, **which)

    async def job(self, experiment_id: str, point: int, replicate: int) -> Document:
        """The `ems.result.v1` of one job, by its last attempt. Raises errors.NotFound if there is no such job."""
        async with contextlib.aclosing(self.jobs(experiment_id, point=point, replicate=replicate)) as jobs:
            async for job in jobs:
                return job
        raise errors.NotFound(f"{experiment_id} has no job of point {point} and replicate {replicate}")

    def points(self, experiment_id: str) -> AsyncGenerator[Document, None]:
        """Yields the `ems.point.v1` of every point, in the order of their numbers."""
        return self._paged("points", "points", experiment_id=asking.check_id(experiment_id))

    async def results(self, experiment_id: str, *, after_seq: int = 0) -> AsyncGenerator[Document, None]:
        """Yields the `ems.result.v1` of ended jobs in the order in which they ended.

        `after_seq` is the `seq` after which to start.
        """
        more = True
        while more:
            page = await self._page("results", experiment_id=asking.check_id(experiment_id), after_seq=after_seq)
            for document in page["results"]:
                yield document
            after_seq, more = page["after_seq"], page["more"]

    async def config(self, simulation_id: str) -> RunConfig:
        """The complete configuration of a run."""
        parts: list[str] = []
        offset: int | None = 0
        while True:
            page = await self._ask("config", simulation_id=simulation_id, offset=offset or None)
            parts.append(page["config"])
            offset = page["next_offset"]
            if offset is None:
                return RunConfig(simulation_id, page["seed"], page["config_sha"], page["computed_sha"], "".join(parts))

    async def plan(
        self, experiment_id: str, *, version: int | None = None, part: Literal["plan", "base"] = "plan"
    ) -> str:
        """The text of an experiment's plan as it was sent, or of the base configuration that was accepted with it.

        `version`: 1 is the plan as accepted, and each `extend` with a plan made another one; by default the present.
        """
        parts: list[str] = []
        offset: int | None = 0
        while True:
            page = await self._ask(
                "plan",
                experiment_id=asking.check_id(experiment_id),
                version=version,
                part=part,
                offset=offset or None,
            )
            parts.append(page["text"])
            version, offset = page["version"], page["next_offset"]
            if offset is None:
                return "".join(parts)

    async def _plans_since(self) -> datetime | None:
        """When the stream of plans was created. None if that is unknown; then decisions of any age are accepted."""
        try:
            with self._connection.translated():
                return (await self._connection.client.jetstream().stream_info(_PLANS_STREAM)).created
        except (errors.EmsError, bus.nats.errors.NoRespondersError, bus.nats.js.errors.NotFoundError):
            return None


def _is_decision(document: Document, seq: int) -> bool:
    submission = document.get("submission")
    return "decision" in document and isinstance(submission, dict) and submission.get("seq") == seq


def _is_status(document: Document, experiment_id: str) -> bool:
    return document.get("experiment_id") == experiment_id and {"revision", "state"} <= document.keys()
