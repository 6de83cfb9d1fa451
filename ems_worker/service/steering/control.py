"""The verbs of `ems.api.*` that change experiments.

A change is in the manifest before its reply, and a repeated request gets the same change's document. The reply comes
within two seconds: if not all jobs are judged by then, its counts are null, and `get` shows the rest.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.core.documents import changes, documents
from ems_worker.core.documents.documents import Document
from ems_worker.core.language import options, version
from ems_worker.core.language.problems import Problems
from ems_worker.core.lifecycle import steering
from ems_worker.core.lifecycle.steering import Ruling, Verb
from ems_worker.core.records import Change, Experiment, Which
from ems_worker.service import queries, settle
from ems_worker.service.base import conditions, crash, missing
from ems_worker.service.base.clock import Clock
from ems_worker.service.base.locks import KeyedLocks
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger import records
from ems_worker.service.ledger.ledger import Ledger
from ems_worker.service.ledger.live import Live
from ems_worker.service.queries import Handler
from ems_worker.service.steering import requests
from ems_worker.service.steering.executor import Executor
from ems_worker.service.steering.extend import Extender
from ems_worker.service.steering.requests import ChangeRequest

log = structlog.get_logger()

# How long a reply waits in all: for the broker to take its change, and until the jobs are judged.
_PATIENCE_SECONDS = 1.0
# How many members of a group are changed at once: their rows share commits.
_MEMBERS = 64


class Control:
    """Records requested changes. `Executor` carries them out."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        manifest: Manifest,
        executor: Executor,
        extender: Extender,
        clock: Clock,
        max_priority: int | None,
        held: Callable[[], bool],
        release: Callable[[], bool],
    ) -> None:
        """`held`: whether the worker is on hold since its start. `release` ends that, and returns whether it was."""
        self._ledger = ledger
        self._manifest = manifest
        self._executor = executor
        self._extender = extender
        self._clock = clock
        self._max_priority = max_priority
        self._held = held
        self._release = release
        # One request of an experiment is recorded at a time: each is decided by what the one before left.
        self._locks = KeyedLocks[str]()

    def handlers(self) -> Mapping[str, Handler]:
        """The handlers by verb; they raise errors.NotFound or errors.RequestRefused."""
        return {verb.value: self._handler(verb) for verb in Verb}

    def _handler(self, verb: Verb) -> Handler:
        async def handle(data: bytes) -> bytes:
            request = queries.read(requests.MODELS[verb], data)
            if isinstance(request, requests.ResumeRequest) and request.all:
                resumed = self._held() if request.dry_run else self._release()
                return documents.encode(changes.resumed_all(request.request_id, resumed, dry_run=request.dry_run))
            until = self._clock.monotonic() + _PATIENCE_SECONDS
            if request.experiment_id is not None:
                return documents.encode(await self._change(verb, request, request.experiment_id, until))
            return documents.encode(changes.group(await self._change_group(verb, request, until)))

        return handle

    async def _change_group(self, verb: Verb, request: ChangeRequest, until: float) -> Sequence[Document]:
        """The documents of a group's members. Those that can't take the request say why, unless that is so for all."""
        refusals: list[errors.RequestRefused] = []
        free = asyncio.Semaphore(_MEMBERS)

        async def change(member: str) -> Document | None:
            async with free:
                try:
                    return await self._change(verb, request, member, until)
                except errors.RequestRefused as refusal:
                    refusals.append(refusal)
                    # From the manifest: what refuses it may be that this worker can't read the plan.
                    if (record := await self._manifest.experiment(member)) is None:
                        return None
                    return changes.document(member, replace(self._draft(record, verb, request), refused=str(refusal)))

        answers = await asyncio.gather(*map(change, await self._members(request.group or "")))
        found = [answer for answer in answers if answer is not None]
        if len(refusals) == len(answers):
            raise refusals[0]
        return found

    async def _change(self, verb: Verb, request: ChangeRequest, experiment_id: str, until: float) -> Document:
        """Records the request for one experiment, waits a while for its effect, and returns its document."""
        async with self._ledger.pinned(experiment_id) as live:
            if live is None:
                raise await missing.experiment(self._manifest, experiment_id)
            if request.dry_run:
                return await self._preview(live, verb, request, until)
            async with self._locks.hold(experiment_id):
                change = await self._known(live, verb, request) or await self._record(live, verb, request)
            self._executor.recorded()
            await self._executor.publisher.published(until - self._clock.monotonic())
            return changes.document(experiment_id, await self._judged(live, change, until))

    async def has_published(self, live: Live, published: Mapping[str, Any]) -> bool:
        """Whether the manifest has a change that was published.

        Raises errors.RequestRefused if its request id is used for another change, and KeyError, TypeError or ValueError
        if its document isn't one of this worker's.
        """
        if _is_own(published):
            return await self._manifest.change_from(published["request"]["request_id"], live.key) is not None
        return await self._known(live, *_published(published)) is not None

    def drafted_again(self, live: Live, published: Mapping[str, Any]) -> tuple[Change, Experiment | None]:
        """A published change as it is to be recorded, and the experiment after it if that changes.

        Raises errors.RequestRefused if it can't be carried out.
        """
        if _is_own(published):
            return settle.cancellation(live, published["request"]["request_id"], self._clock.now_ms()), None
        verb, request = _published(published)
        # Its revision was the expected one when it was recorded.
        ruling = self._ruled(live, verb, request.model_copy(update={"expect_revision": None}))
        # Those of before the key have none.
        conditions.read(request.where, live.record.spec.parameters, int(published.get("language", 1)))
        return self._drafted(live, verb, request, ruling)

    async def _members(self, group: str) -> list[str]:
        """The ids of the experiments of a group, newest first."""
        members: list[str] = []
        before: int | None = None
        while page := await self._manifest.statuses(Which(group=group), before_key=before):
            members += [listed.experiment_id for listed in page]
            before = page[-1].key
        if not members:
            raise errors.NotFound(f"there is no experiment of the group {group}")
        return members

    async def _known(self, live: Live, verb: Verb, request: ChangeRequest) -> Change | None:
        """The change as recorded when its request first arrived; None if it is new."""
        recorded = await self._manifest.change_from(request.request_id, live.key)
        # The changes of a group have the same request.
        first = recorded or await self._manifest.change_from(request.request_id, 0)
        if first is not None and (first.verb, first.request) != (verb, _encoded(request)):
            message = f"request_id {request.request_id} was used for another change: use a new id for each change"
            raise errors.RequestRefused(message)
        return recorded if recorded is not None and recorded.experiment == live.key else None

    async def _record(self, live: Live, verb: Verb, request: ChangeRequest) -> Change:
        ruling = self._ruled(live, verb, request)
        if verb is Verb.EXTEND:
            await self._extender.check(live, json.loads(_encoded(request)))
            # Asked again: the plan was examined for a while.
            ruling = self._ruled(live, verb, request)
        change, after = self._drafted(live, verb, request, ruling)
        self._executor.publisher.refuse_too_large(live.experiment_id, change)
        recorded = await self._ledger.records.change(live, change, after)
        crash.point("steering.recorded")
        log.info(
            "experiment.change_recorded",
            experiment_id=live.experiment_id,
            verb=verb.value,
            request_id=request.request_id,
            changed=recorded.changed,
        )
        return recorded

    def _ruled(self, live: Live, verb: Verb, request: ChangeRequest) -> Ruling:
        """What the verb does now. Raises errors.RequestRefused if it can't be carried out."""
        if request.expect_revision not in (None, live.record.revision):
            now = f"{live.experiment_id} has revision {live.record.revision}, not {request.expect_revision}"
            raise errors.RequestRefused(f"expect_revision: {now}")
        conditions.read(request.where, live.record.spec.parameters, version.VERSION)
        ruling = steering.rule(
            verb,
            live.record.standing,
            where=request.where is not None,
            expanded=live.expanded,
            now=isinstance(request, requests.PauseRequest) and request.now,
            drain=isinstance(request, requests.CancelRequest) and request.drain,
        )
        if ruling.refused is not None:
            raise errors.RequestRefused(f"{live.experiment_id}: {ruling.refused}")
        return ruling

    def _drafted(
        self, live: Live, verb: Verb, request: ChangeRequest, ruling: Ruling
    ) -> tuple[Change, Experiment | None]:
        """The change as it is to be recorded, and the experiment after it if that changes."""
        now_ms, record = self._clock.now_ms(), live.record
        # A new round begins with the first job that it has.
        changes_now = ruling.changed and not ruling.reopens(record.standing)
        after = records.steered(record, ruling.after, now_ms) if changes_now else record
        if isinstance(request, requests.SetRequest):
            overrides = self._overrides(live, request)
            after = replace(after, overrides=overrides)
        change = self._draft(record, verb, request)
        if after != record or ruling.judges:
            judged = (-1, -1) if ruling.judges else None
            change = replace(change, state=after.state, round=after.round, changed=True, judged=judged, applied_ms=None)
        return change, None if after == record else after

    def _draft(self, record: Experiment, verb: Verb, request: ChangeRequest) -> Change:
        """A change that changes nothing."""
        now_ms = self._clock.now_ms()
        return Change(
            request_id=request.request_id,
            experiment=record.key,
            verb=verb.value,
            request=_encoded(request),
            received_ms=now_ms,
            state=record.state,
            round=record.round,
            revision=record.revision,
            changed=False,
            judged=None,
            applied_ms=now_ms,
            language=version.VERSION,
        )

    def _overrides(self, live: Live, request: requests.SetRequest) -> Mapping[str, Any]:
        """The experiment's own limits after this request. Raises errors.RequestRefused."""
        problems = Problems()
        valid = options.parse_overrides(request.limits, problems)
        priority = valid.get("priority")
        if self._max_priority is not None and isinstance(priority, int) and priority > self._max_priority:
            message = f"the highest priority that this worker grants is {self._max_priority}"
            problems.add("out_of_range", ("priority",), message)
        if len(problems):
            raise errors.RequestRefused("; ".join(f"{each.path}: {each.message}" for each in problems.collected()))
        return options.merged(live.record.overrides, valid)

    async def _judged(self, live: Live, change: Change, until: float) -> Change:
        """The change once all its jobs are judged, or as it is then."""
        while change.number in live.changes and self._clock.monotonic() < until:
            if not await self._executor.step(live):
                break
        present = await self._manifest.change_from(change.request_id, live.key)
        assert present is not None
        return present

    async def _preview(self, live: Live, verb: Verb, request: ChangeRequest, until: float) -> Document:
        """The document that the request would get, without anything recorded."""
        draft, _ = self._drafted(live, verb, request, self._ruled(live, verb, request))
        previewed = await self._executor.preview(live, draft, lambda: self._clock.monotonic() < until)
        return changes.document(live.experiment_id, previewed)


def _encoded(request: ChangeRequest) -> str:
    return documents.encode(requests.stored(request)).decode()


def _is_own(published: Mapping[str, Any]) -> bool:
    return str(published["request"]["request_id"]).startswith(changes.OWN_REQUEST)


def _published(published: Mapping[str, Any]) -> tuple[Verb, ChangeRequest]:
    verb = Verb(published["verb"])
    return verb, requests.MODELS[verb].model_validate(published["request"])
