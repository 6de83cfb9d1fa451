"""What the Evolution Engine imports, and the command line uses: one object that talks to the worker."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import nats.errors
import nats.js.errors

from ems_worker import errors
from ems_worker.client import connection, latest, publishing
from ems_worker.client.dead_letters import DeadLetters
from ems_worker.client.publishing import PubAck
from ems_worker.core import ids
from ems_worker.core.documents import subjects
from ems_worker.core.lifecycle import experiment
from ems_worker.settings import Access

Document = dict[str, Any]

# States of experiments that have ended.
TERMINAL: frozenset[str] = experiment.ENDED

_DECISION = subjects.DECISION
_STATUS = subjects.STATUS
_STATUS_STREAM = subjects.STATUS_STREAM
_PLANS_STREAM = subjects.PLANS_STREAM
_API = subjects.API
# Documents in a page: the most that the worker gives, and a power of four, so that it divides down to one.
_PAGE = 64


@dataclass(frozen=True, slots=True)
class RunConfig:
    """The configuration that a run gets. `config_sha` was recorded when it was submitted (None before)."""

    simulation_id: str
    seed: int
    config_sha: str | None
    computed_sha: str
    content: str


class EmsClient:
    """Connected inside `async with`. Safe to use from several tasks. `dead_letters` is what the worker could not use.

    Every call may raise errors.BrokerUnavailable; the queries also errors.WorkerUnavailable (nobody serves them),
    errors.NoAnswer (nobody answered in time), errors.NotFound and errors.RequestRefused.
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
        """`servers`: URLs, or with more than that `settings.access()`: contexts, credentials, certificates.

        Timeouts are seconds. `notice` is told when the connection is lost and found again. `publisher` names the sender
        of plans: one subject token. Raises errors.RequestRefused for what is none.
        """
        publishing.subject(publisher)
        self._publisher = publisher
        self._connection = connection.Connection(servers, timeout=connect_timeout, notice=notice or (lambda _: None))
        self._request_timeout = request_timeout
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
        """Stores a plan where the worker finds it, now or when it starts; returns once it is stored, exactly once.

        It may be of any size: one that doesn't fit into a message is compressed, or put into the object store.
        `publisher` is one subject token that names the sender, in place of the client's; `traceparent` goes on to its
        runs and results. Raises errors.BrokerMisconfigured where nothing takes plans, errors.RequestRefused where that
        is full.
        """
        headers = {"Content-Type": content_type, "traceparent": traceparent}
        return await publishing.store(
            self._connection,
            publishing.subject(publisher or self._publisher),
            plan,
            {name: value for name, value in headers.items() if value is not None},
            self._request_timeout,
        )

    async def decision(self, seq: int, timeout: float) -> Document:
        """The `ems.decision.v1` about the plan with this sequence number. Raises errors.NoAnswer after `timeout`."""
        try:
            async with asyncio.timeout(timeout):
                since = await self._plans_since()
                found = latest.documents(
                    self._connection, f"{_DECISION}.{seq}", lambda document: _is_decision(document, seq), since
                )
                async with contextlib.aclosing(found) as decisions:
                    async for document in decisions:
                        return document
        except TimeoutError as late:
            raise errors.NoAnswer(f"no worker has decided about the plan in {timeout:g} s") from late
        raise AssertionError("the stream of decisions has no end")

    async def watch(self, experiment_id: str) -> AsyncGenerator[Document, None]:
        """Its `ems.status.v1` documents: the last known one at once, then live ones, up to and with a terminal one.

        Older revisions are dropped. Raises errors.NotFound for an experiment that nobody knows.
        """
        _check_id(experiment_id)
        subject = f"{_STATUS}.{experiment_id}"
        revision = -1
        if await self._connection.last(_STATUS_STREAM, subject) is None:
            # Accepted this moment, its status not out yet; or unknown, which only the worker can tell.
            await self.get(experiment_id)
        found = latest.documents(self._connection, subject, lambda document: _is_status(document, experiment_id))
        async with contextlib.aclosing(found) as documents:
            async for document in documents:
                if document["revision"] > revision:
                    revision = document["revision"]
                    yield document
                    if document["state"] in TERMINAL:
                        return

    async def wait(self, experiment_id: str) -> Document:
        """The terminal `ems.status.v1` of an experiment, once there is one."""
        async with contextlib.aclosing(self.watch(experiment_id)) as documents:
            async for document in documents:
                if document["state"] in TERMINAL:
                    return document
        raise AssertionError("watch ends with a terminal status")

    async def validate(self, plan: bytes) -> Document:
        """The `ems.decision.v1` that the worker would give; nothing is stored."""
        data = await publishing.fitting(self._connection, plan)
        return await self._connection.ask(f"{_API}.validate", data, self._request_timeout)

    def experiments(self, *, group: str | None = None, state: str | None = None) -> AsyncGenerator[Document, None]:
        """`ems.status.v1` of all experiments, the newest first."""
        return self._paged("list", "experiments", group=group, state=state)

    async def get(self, experiment_id: str) -> Document:
        """`ems.status.v1` with `description`, `parameters` (name to path), `plan_sha` and `submission`."""
        return await self._ask("get", experiment_id=_check_id(experiment_id))

    def jobs(
        self, experiment_id: str, *, state: str | None = None, attempts: bool = False
    ) -> AsyncGenerator[Document, None]:
        """Jobs as `ems.result.v1`, open ones too, by point and replicate; with `attempts` all runs of each."""
        return self._paged(
            "jobs", "jobs", experiment_id=_check_id(experiment_id), state=state, attempts=attempts or None
        )

    def points(self, experiment_id: str) -> AsyncGenerator[Document, None]:
        """`ems.point.v1` of all points, by number."""
        return self._paged("points", "points", experiment_id=_check_id(experiment_id))

    async def results(self, experiment_id: str, *, after_seq: int = 0) -> AsyncGenerator[Document, None]:
        """`ems.result.v1` of ended jobs in the order of their end, after a position in that order."""
        more = True
        while more:
            page = await self._page("results", experiment_id=_check_id(experiment_id), after_seq=after_seq)
            for document in page["results"]:
                yield document
            after_seq, more = page["after_seq"], page["more"]

    async def config(self, simulation_id: str) -> RunConfig:
        """The configuration of one run, complete."""
        parts: list[str] = []
        offset: int | None = 0
        while True:
            page = await self._ask("config", simulation_id=simulation_id, offset=offset or None)
            parts.append(page["config"])
            offset = page["next_offset"]
            if offset is None:
                return RunConfig(simulation_id, page["seed"], page["config_sha"], page["computed_sha"], "".join(parts))

    async def retry(self, experiment_id: str, *, request_id: str | None = None) -> Document:
        """Tries failed and lost jobs once more, and those that were cancelled since too many had failed.

        The answer is `ems.change.v1`, with how many (`retried`).

        An experiment that had ended opens again as a new round. Asked again under the same `request_id` (default: a new
        one) nothing more happens, and the answer is the same.
        """
        return await self._change("retry", experiment_id, request_id)

    async def resume(self, experiment_id: str, *, request_id: str | None = None) -> Document:
        """Goes on with an experiment that is held; `ems.change.v1`. `request_id` as in `retry`."""
        return await self._change("resume", experiment_id, request_id)

    async def _change(self, verb: str, experiment_id: str, request_id: str | None) -> Document:
        return await self._ask(verb, experiment_id=_check_id(experiment_id), request_id=request_id or str(uuid.uuid4()))

    async def _ask(self, endpoint: str, **request: object) -> Document:
        body = json.dumps({name: value for name, value in request.items() if value is not None})
        try:
            return await self._connection.ask(f"{_API}.{endpoint}", body.encode(), self._request_timeout)
        except connection.ReplyTooLarge as large:
            if request.get("limit", 1) == 1:  # what was asked for can't be less
                raise self._connection.too_large("the worker's answer") from large
            raise

    async def _page(self, endpoint: str, **request: object) -> Document:
        """One page, made smaller until it fits into a message."""
        limit = _PAGE
        while True:
            try:
                return await self._ask(endpoint, limit=limit, **request)
            except connection.ReplyTooLarge:
                limit = max(1, limit // 4)

    async def _paged(self, endpoint: str, key: str, **request: object) -> AsyncGenerator[Document, None]:
        cursor: str | None = None
        while True:
            page = await self._page(endpoint, cursor=cursor, **request)
            for document in page[key]:
                yield document
            cursor = page["cursor"]
            if cursor is None:
                return

    async def _plans_since(self) -> datetime | None:
        """When the stream of plans was made; None where that can't be told: then a decision counts whatever its age."""
        try:
            with self._connection.translated():
                return (await self._connection.client.jetstream().stream_info(_PLANS_STREAM)).created
        except (errors.EmsError, nats.errors.NoRespondersError, nats.js.errors.NotFoundError):
            return None


def _is_decision(document: Document, seq: int) -> bool:
    submission = document.get("submission")
    return "decision" in document and isinstance(submission, dict) and submission.get("seq") == seq


def _is_status(document: Document, experiment_id: str) -> bool:
    return document.get("experiment_id") == experiment_id and {"revision", "state"} <= document.keys()


def _check_id(experiment_id: str) -> str:
    # Anything else would be several subject tokens, or a wildcard.
    if not ids.EXPERIMENT_ID.fullmatch(experiment_id):
        raise errors.NotFound(f"no experiment {experiment_id!r}: an id has letters, digits, '-' and '_' only")
    return experiment_id
