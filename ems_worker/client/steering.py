"""The changes of experiments that a program or person may request."""

import asyncio
import contextlib
import json
import uuid
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from ems_worker import errors
from ems_worker.client import asking, bus
from ems_worker.client.asking import Document
from ems_worker.core.documents import subjects

if TYPE_CHECKING:
    from nats.aio.subscription import Subscription

_WHOM = "name an experiment or a group"
# A request that got no answer is sent again, with the same id, this often in all.
_TRIES = 3
# How long to wait for the message that a change is complete before asking the worker.
_LOOK_SECONDS = 2.0
# Room for what the worker adds to a request when it publishes the change.
_HEADROOM_BYTES = 8192


class Options(TypedDict, total=False):
    """What every verb takes.

    `group`: all experiments of a group, instead of one. `reason`: recorded and published with the change. `dry_run`:
    only say what would happen. `expect_revision`: refuse unless this is the revision of the experiment's status.
    `request_id`: repeating a request with the same id has no further effect; by default each request has a new one.
    `wait`: return only when the change is complete, with nothing of it in flight any more. `timeout`: how many seconds
    to wait for that; errors.NoAnswer after it. By default there is no limit.
    """

    group: str
    reason: str | None
    dry_run: bool
    expect_revision: int | None
    request_id: str | None
    wait: bool
    timeout: float | None


class SetOptions(Options, total=False):
    """The limits that `set` changes, as in a plan's `limits`; None returns to the plan's own."""

    priority: int | None
    max_concurrent: int | None
    max_failed: int | str | None


# Keys of a request that are sent even if they are None.
_LIMITS = SetOptions.__annotations__.keys() - Options.__annotations__.keys()
# Options that concern only the client.
_OURS = frozenset({"wait", "timeout"})


class Steering(asking.Asker):
    """The verbs. Each takes an experiment's id or `group`, and `Options`.

    Each returns an `ems.change.v1`, or for a group an `ems.changes.v1` with one for each experiment. If no answer
    comes, the request is sent again with the same id. They may raise errors.NotFound and errors.RequestRefused.
    """

    async def pause(
        self, experiment_id: str | None = None, *, now: bool = False, **options: Unpack[Options]
    ) -> Document:
        """Starts no more runs until `resume`. With `now`, pauses running ones too, if the orchestrator can do that."""
        return await self._change("pause", experiment_id, options, now=now or None)

    async def resume(
        self,
        experiment_id: str | None = None,
        *,
        all: bool = False,  # noqa: A002 - the name that the request has
        **options: Unpack[Options],
    ) -> Document:
        """Ends every pause, except that of a used-up budget.

        With `all` and no experiment, a worker that was started with `--hold` starts runs from now on; experiments that
        are paused stay so.
        """
        return await self._change("resume", experiment_id, options, all=all or None)

    async def cancel(
        self,
        experiment_id: str | None = None,
        *,
        drain: bool = False,
        where: str | None = None,
        **options: Unpack[Options],
    ) -> Document:
        """Cancels the experiment, or those of its jobs for which the expression `where` holds.

        Nothing more starts. Running runs are stopped, or with `drain` may end.
        """
        return await self._change("cancel", experiment_id, options, drain=drain or None, where=where)

    async def retry(
        self, experiment_id: str | None = None, *, where: str | None = None, **options: Unpack[Options]
    ) -> Document:
        """Runs jobs again that failed or were lost, or that were dropped because too many failed.

        With `where`, all ended jobs for which it holds and which did not complete: infeasible ones only if it names
        `error_kind`, and those that somebody cancelled only if it names `state`. An experiment that has ended reopens
        as a new round.
        """
        return await self._change("retry", experiment_id, options, where=where)

    async def extend(
        self,
        experiment_id: str | None = None,
        *,
        plan: bytes | str | Mapping[str, Any] | None = None,
        replicates: int | None = None,
        samples: int | None = None,
        add: Mapping[str, Sequence[Any]] | None = None,
        withdraw: bool = False,
        **options: Unpack[Options],
    ) -> Document:
        """Adds points or replicates: those of a new `plan` that are not there yet, or a change of the present plan.

        `replicates` and `samples` are the new numbers; `add` maps parameter paths to further values. Points that are
        there keep their numbers and results. `withdraw` cancels and excludes those that the new plan doesn't have.
        """
        return await self._change(
            "extend",
            experiment_id,
            options,
            plan=_text(plan) if isinstance(plan, bytes) else plan,
            replicates=replicates,
            samples=samples,
            add=None if add is None else {path: list(values) for path, values in add.items()},
            withdraw=withdraw or None,
        )

    async def set(self, experiment_id: str | None = None, **options: Unpack[SetOptions]) -> Document:
        """Replaces limits of the plan: `priority`, `max_concurrent`, `max_failed`."""
        if not options.keys() & _LIMITS:
            raise errors.RequestRefused(f"name a limit: {', '.join(sorted(_LIMITS))}")
        return await self._change("set", experiment_id, options)

    async def close(self, experiment_id: str | None = None, **options: Unpack[Options]) -> Document:
        """Lets an experiment with `keep_open` end as soon as its jobs have."""
        return await self._change("close", experiment_id, options)

    async def remove(
        self,
        experiment_id: str,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        expect_revision: int | None = None,
        request_id: str | None = None,
    ) -> Document:
        """Removes an experiment that has ended, for ever: neither its id nor its plan can be used again."""
        options = {
            "reason": reason,
            "dry_run": dry_run,
            "expect_revision": expect_revision,
            "request_id": request_id,
        }
        return await self._change("remove", experiment_id, options)

    async def exclude(
        self, experiment_id: str | None = None, *, where: str | None = None, **options: Unpack[Options]
    ) -> Document:
        """Leaves jobs out of aggregates and ranking: those for which `where` holds, or all. Cancels nothing."""
        return await self._change("exclude", experiment_id, options, where=where)

    async def include(
        self, experiment_id: str | None = None, *, where: str | None = None, **options: Unpack[Options]
    ) -> Document:
        """Counts excluded jobs again: those for which `where` holds, or all."""
        return await self._change("include", experiment_id, options, where=where)

    async def _change(
        self, verb: str, experiment_id: str | None, options: Mapping[str, Any], **own: object
    ) -> Document:
        request = _request(experiment_id, options, own)
        if not options.get("wait") or request.get("dry_run"):
            return _accepted(await self._repeat(verb, request))
        try:
            async with asyncio.timeout(options.get("timeout")):
                return _accepted(await self._to_the_end(verb, request))
        except TimeoutError as late:
            raise errors.NoAnswer(
                f"{verb} was not complete within {options.get('timeout'):g} s; it continues"
            ) from late

    async def _repeat(self, verb: str, request: Mapping[str, object]) -> Document:
        """Sends a request until there is an answer. It has an id, so that it is carried out once."""
        if len(json.dumps(request)) > self._connection.client.max_payload - _HEADROOM_BYTES:
            raise self._connection.too_large("the request")
        timeout, asked = self._request_timeout / _TRIES, False
        for _ in range(_TRIES - 1):
            try:
                return await self._send(verb, request, timeout)
            except errors.NoAnswer:
                asked = True
            except errors.WorkerUnavailable as gone:
                if asked:
                    raise errors.NoAnswer(f"{gone}; it may have got the request before") from gone
                raise
        try:
            return await self._send(verb, request, timeout)
        except errors.NoAnswer as late:
            raise errors.NoAnswer(f"{late}; asked {_TRIES} times") from late

    async def _to_the_end(self, verb: str, request: Mapping[str, object]) -> Document:
        """Sends a request and returns its document when the change is complete.

        Messages on the subject of changes only say when to ask: anybody might direct a message there.
        """
        subject = f"{subjects.CHANGE}.{request.get('experiment_id', '*')}"
        async with self._subscribed(subject) as live:
            document = await self._repeat(verb, request)
            while not _complete(document):
                await _told(live, str(request["request_id"]))
                with contextlib.suppress(errors.NoAnswer, errors.WorkerUnavailable, errors.BrokerUnavailable):
                    document = await self._send(verb, request)
            return document

    @contextlib.asynccontextmanager
    async def _subscribed(self, subject: str) -> "AsyncGenerator[Subscription, None]":
        with self._connection.translated():
            live = await self._connection.client.subscribe(subject)
        try:
            yield live
        finally:
            with contextlib.suppress(bus.nats.errors.Error):  # the connection is closed, and with it the subscription
                await live.unsubscribe()


def _request(experiment_id: str | None, options: Mapping[str, Any], own: Mapping[str, object]) -> dict[str, object]:
    """The request's keys. Raises errors.RequestRefused unless it is about one experiment, one group, or all."""
    group = options.get("group")
    if [experiment_id, group, own.get("all")].count(None) != 2:
        raise errors.RequestRefused(_WHOM)
    given = {"experiment_id": None if experiment_id is None else asking.check_id(experiment_id), **options, **own}
    request = {
        name: value for name, value in given.items() if name not in _OURS and (value is not None or name in _LIMITS)
    }
    if not request.get("dry_run"):
        request.pop("dry_run", None)
    return {"request_id": options.get("request_id") or str(uuid.uuid4()), **request}


def _text(plan: bytes) -> str:
    try:
        return plan.decode()
    except UnicodeDecodeError as error:
        raise errors.RequestRefused("the plan is not UTF-8 text") from error


def _accepted(document: Document) -> Document:
    """The document of a change, or those of a group's members, of which each says whether it is refused.

    Raises errors.RequestRefused if a change is refused that was recorded before that was known.
    """
    if document.get("refused"):
        raise errors.RequestRefused(str(document.get("reason")))
    return document


def _complete(document: Document) -> bool:
    """Whether a change is complete, or each change of a group. What changed nothing has nothing to wait for."""
    changes = document.get("changes", [document])
    return all(change.get("applied") or not change.get("changed", True) for change in changes)


async def _told(live: "Subscription", request_id: str) -> None:
    """Returns when a message says that a change of this request is complete, or after a while."""
    with contextlib.suppress(TimeoutError, bus.nats.errors.TimeoutError):
        async with asyncio.timeout(_LOOK_SECONDS):
            while True:
                message = await live.next_msg(timeout=_LOOK_SECONDS)
                with contextlib.suppress(ValueError):
                    document = json.loads(message.data)
                    if (
                        isinstance(document, dict)
                        and document.get("request_id") == request_id
                        and document.get("applied")
                    ):
                        return
