"""Answers queries: the NATS service `ems.api.*`. JSON in, JSON out; pages are limited and continue at a cursor."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

import orjson
import pydantic
from pydantic_core import ErrorDetails

from ems_worker import errors
from ems_worker.core import ids
from ems_worker.core.documents import changes, documents, headings, limits, results, titles
from ems_worker.core.language import version
from ems_worker.core.lifecycle import estimate, experiment
from ems_worker.core.records import Experiment, PlanDecision
from ems_worker.service import asked, plan_text, reasons, statuses
from ems_worker.service.base import conditions, missing
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.ports import Manifest
from ems_worker.service.base.versions import Versions
from ems_worker.service.intake import check
from ems_worker.service.intake.check import PlanReader, Platform
from ems_worker.service.intake.examination import Examiner
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.reasons import Reasons

Handler = Callable[[bytes], Awaitable[bytes]]

# Changes in a reply to `get`.
_CHANGES = 10
# Our own messages for the most frequent errors of pydantic, by type.
_MESSAGES = {"extra_forbidden": "there is no such key", "missing": "is missing", "too_short": "is empty"}


_AnyRequest = TypeVar("_AnyRequest", bound=pydantic.BaseModel)


class Queries:
    """The handlers of queries, by verb. Each raises errors.NotFound or errors.RequestRefused if it can't answer."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        reader: PlanReader,
        examiner: Examiner,
        clock: Clock,
        worker_id: str,
        message_limit: Callable[[], int | None],
        slots: Callable[[], int],
        versions: Versions,
        reasons: Reasons,
    ) -> None:
        """`slots`: how many runs may be open at once, 0 while that is unknown."""
        self._ledger = ledger
        self._manifest = manifest
        self._reader = reader
        self._examiner = examiner
        self._clock = clock
        self._worker_id = worker_id
        self._message_limit = message_limit
        self._slots = slots
        self._versions = versions
        self._reasons = reasons

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "validate": self._validate,
            "list": self._list,
            "get": self._get,
            "jobs": self._jobs,
            "points": self._points,
            "results": self._results,
            "config": self._config,
            "plan": self._plan,
        }

    async def _validate(self, data: bytes) -> bytes:
        """What intake would decide, as far as the plan alone determines it; with an estimate of how long it takes."""
        try:
            async with self._examiner.examine(data) as examined:
                outline = await examined.outline()
                platform = Platform(model_version=self._versions.reported, message_limit=self._message_limit())
                async for step in examined.steps("", platform):
                    outline = step
                past = await self._manifest.durations(await examined.base())
        except errors.PlanRejected as error:
            return self._refused(error.problems)
        except errors.Unreadable as error:
            return self._refused([errors.Problem("unreadable", "", str(error))])
        document = documents.decision(
            PlanDecision.ACCEPTED,
            experiment_id=outline.experiment_id,
            points=outline.count.points,
            jobs=outline.count.jobs,
            plan_sha=outline.plan_sha,
            warnings=outline.warnings,
        )
        slots = min(self._slots(), outline.max_concurrent or self._slots())
        return documents.encode({**document, "estimate": estimate.estimate(past, outline.count.jobs, slots)})

    def _refused(self, problems: Sequence[errors.Problem]) -> bytes:
        return documents.encode({**documents.decision(PlanDecision.REJECTED, errors=problems), "estimate": None})

    async def _list(self, data: bytes) -> bytes:
        request = read(asked.ListRequest, data)
        before = None if request.cursor is None else _number(request.cursor)
        rows = await self._manifest.statuses(asked.which(request), before_key=before, limit=request.limit)
        cursor = str(rows[-1].key) if len(rows) == request.limit else None
        statuses = [{**await self._status(row.experiment_id, row.status), "publisher": row.publisher} for row in rows]
        return documents.encode({"schema": titles.LIST, "experiments": statuses, "cursor": cursor})

    async def _get(self, data: bytes) -> bytes:
        request = read(asked.GetRequest, data).experiment_id
        record = await self._record(request)
        live, latest = self._ledger.live(request), await self._manifest.latest_changes(record.key, _CHANGES)
        details = {
            "description": record.spec.description,
            "parameters": dict(record.spec.parameters or {}),
            "headings": headings.extended({}, record.spec.headings),
            "plan_sha": record.spec.plan_sha,
            "publisher": await self._manifest.publisher(record.key),
            "points": record.spec.points,
            "replicates": record.spec.replicates,
            "plan_version": record.plan_version,
            "limits": None if live is None or live.ended else limits.in_force(live.limits),
            "overrides": dict(record.overrides),
            "bytes": await self._manifest.bytes_of(record.key),
            "changes": [changes.brief(request, change) for change in latest],
        }
        status = await self._status(request, await self._manifest.status(record.key))
        return documents.encode({**status, **details})

    async def _jobs(self, data: bytes) -> bytes:
        request = read(asked.JobsRequest, data)
        record = await self._record(request.experiment_id)
        first, end = asked.range_of(request)
        after = first if request.cursor is None else max(first, _numbers(request.cursor))
        # In a thread, because a long condition takes tens of milliseconds to read.
        condition = await asyncio.to_thread(conditions.read, request.where, record.spec.parameters, version.VERSION)
        read_page = functools.partial(
            self._manifest.jobs_page, record.key, last=end, attempts=request.attempts, state=request.state
        )
        rows, last = await conditions.page(read_page, after, request.limit, condition)
        return documents.encode(
            {
                "schema": titles.JOBS,
                "jobs": [results.result(request.experiment_id, row) for row in rows],
                "cursor": None if last is None else ".".join(map(str, last)),
            }
        )

    async def _points(self, data: bytes) -> bytes:
        request = read(asked.PageRequest, data)
        record = await self._record(request.experiment_id)
        after = -1 if request.cursor is None else _number(request.cursor)
        rows = await self._manifest.points_page(record.key, after, request.limit)
        cursor = str(rows[-1].point.point) if len(rows) == request.limit else None
        points = [documents.point(request.experiment_id, row) for row in rows]
        return documents.encode({"schema": titles.POINTS, "points": points, "cursor": cursor})

    async def _results(self, data: bytes) -> bytes:
        request = read(asked.ResultsRequest, data)
        record = await self._record(request.experiment_id)
        rows = await self._manifest.results(record.key, request.after_seq, request.limit)
        return documents.encode(
            {
                "schema": titles.RESULTS,
                "results": [results.result(request.experiment_id, row) for row in rows],
                "after_seq": rows[-1].run.ended_seq if rows else request.after_seq,
                "more": len(rows) == request.limit,
            }
        )

    async def _config(self, data: bytes) -> bytes:
        request = read(asked.ConfigRequest, data)
        parsed = ids.parse_simulation_id(request.simulation_id)
        record = None if parsed is None else await self._manifest.experiment(parsed.experiment_id)
        if parsed is None or record is None:
            raise errors.NotFound(f"there is no run {request.simulation_id}")
        key = (record.key, parsed.point, parsed.replicate)
        job = (await self._manifest.jobs([key])).get(key)
        if job is None or not 1 <= parsed.attempt <= len(job.runs):
            raise errors.NotFound(f"there is no run {request.simulation_id}")
        run = job.attempt(parsed.attempt)
        point = (await self._manifest.points_by_number(record.key, [parsed.point]))[parsed.point]
        live = self._ledger.live(parsed.experiment_id)
        if live is not None:
            template = live.template
        else:
            # In a thread, because reading a plan may take a second.
            _, _, template = await asyncio.to_thread(check.loaded, record.spec, self._reader)
        text = template.render(point.params, run.seed, request.simulation_id).decode()
        end = request.offset + plan_text.PART
        return documents.encode(
            {
                "schema": titles.CONFIG,
                "simulation_id": request.simulation_id,
                "seed": run.seed,
                "config_sha": run.config_sha,
                "computed_sha": template.config_sha(point.params, run.seed),
                "config": text[request.offset : end],
                "next_offset": end if end < len(text) else None,
            }
        )

    async def _plan(self, data: bytes) -> bytes:
        request = read(plan_text.PlanRequest, data)
        record = await self._record(request.experiment_id)
        return documents.encode(await plan_text.read(self._manifest, record, request))

    async def _record(self, experiment_id: str) -> Experiment:
        record = await self._manifest.experiment(experiment_id)
        if record is None:
            raise await missing.experiment(self._manifest, experiment_id)
        return record

    async def _status(self, experiment_id: str, stored: bytes | None) -> documents.Document:
        """The present status of an experiment in memory; of any other the last that was recorded."""
        live, now_ms = self._ledger.live(experiment_id), self._clock.now_ms()
        if live is not None:
            reason = self._reasons.of(live)
            return statuses.compose(
                live, live.record, live.recorded, worker_id=self._worker_id, now_ms=now_ms, reason=reason
            )
        document: documents.Document = orjson.loads(stored or b"{}")
        if not document:
            # It was accepted a moment ago, or its plan can't be read here.
            record = await self._record(experiment_id)
            tally = await self._manifest.tally(record.key)
            document = documents.status(record, tally, worker_id=self._worker_id, now_ms=now_ms, pace=documents.Pace())
        unreadable = self._ledger.unreadable.get(experiment_id)
        if unreadable is None or document["state"] in experiment.ENDED:
            return document
        return {**document, "reason": reasons.short(unreadable)}


def read(kind: type[_AnyRequest], data: bytes) -> _AnyRequest:
    """A request's JSON as its model. Raises errors.RequestRefused, naming the problems."""
    try:
        return kind.model_validate_json(data or b"{}")
    except pydantic.ValidationError as error:
        raise errors.RequestRefused("; ".join(map(_message, error.errors()))) from None


def _message(error: ErrorDetails) -> str:
    location = ".".join(map(str, error["loc"])) or "request"
    message = _MESSAGES.get(error["type"]) or error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    return f"{location}: {message}"


def _number(cursor: str) -> int:
    return _numbers(f"{cursor}.0.0")[0]


def _numbers(cursor: str) -> tuple[int, int, int]:
    parts = cursor.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise errors.RequestRefused(f"cursor: {cursor!r} is not a cursor of an earlier reply")
    return int(parts[0]), int(parts[1]), int(parts[2])
