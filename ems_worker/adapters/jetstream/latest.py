"""Subjects that keep only their latest message: statuses and decisions, in one stream."""

import asyncio
import base64
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import orjson

from ems_worker.adapters.jetstream import acks, api, connection, publish, streams
from ems_worker.adapters.jetstream.item import Item
from ems_worker.core.documents import subjects

_MAX_REMEMBERED_SUBJECTS = 10_000
# JSON holds integers exactly only up to here; a higher revision is not one of ours.
_MAX_REVISION = 2**53


@dataclass(frozen=True, slots=True)
class _Latest:
    """What we know of the latest message of a subject. `revision` is None for no message, and for a foreign one."""

    seq: int
    revision: int | None
    digest: bytes


_NOTHING = _Latest(0, None, b"")


class LatestPublisher:
    """Stores the latest message of a subject, and reads what is stored."""

    def __init__(self, link: connection.Connection, publisher: publish.Publisher) -> None:
        self._link = link
        self._publisher = publisher
        self._latest: OrderedDict[str, _Latest] = OrderedDict()

    async def store(self, subject: str, data: bytes, revision: int) -> bool:
        """Makes `data` the latest message of its subject.

        Returns False if the subject already has a higher `revision`, or different data under the same one. The same
        data is there already if its acknowledgement got lost; that counts as stored. Every write names the sequence
        that it replaces, so a delayed status, or that of another worker, never overwrites a newer one. Raises what
        `publish.Publisher.store` raises.
        """
        give_up_at = asyncio.get_running_loop().time() + publish.GIVE_UP_SECONDS
        while True:
            latest = self._latest.get(subject, _NOTHING)
            if latest.revision is not None and latest.revision >= revision:
                return latest.revision == revision and await self._is_stored(subject, data, latest)
            item = Item(subject, data, {"Nats-Expected-Last-Subject-Sequence": str(latest.seq)}, document=True)
            answer = (await self._publisher.send([item]))[0]
            if answer is not None and "error" not in answer:
                self._remember(subject, _Latest(int(answer["seq"]), revision, _digest(data)))
                return True
            if acks.error_code(answer) == api.WRONG_LAST_SEQUENCE:
                self._remember(subject, await self._read(subject))
                continue
            if await self._publisher.learn_limits([(item, answer)]):
                continue
            if acks.is_permanent(answer) or asyncio.get_running_loop().time() > give_up_at:
                raise await self._publisher.failure(item, answer)
            await asyncio.sleep(publish.PAUSE_SECONDS)

    async def stored_revision(self, subject: str) -> int | None:
        """The `revision` of the subject's latest message; None without one."""
        latest = await self._read(subject)
        # The next write has to name this sequence, not one that we remember from before.
        self._remember(subject, latest)
        return latest.revision

    async def has_decision(self, seq: int) -> bool:
        """Whether the decision on the plan with this sequence is stored; other content on its subject doesn't count."""
        message = await self._message(f"{subjects.DECISION}.{seq}")
        document = None if message is None else api.read(base64.b64decode(message.get("data", "")))
        submission = None if document is None else document.get("submission")
        return isinstance(submission, dict) and submission.get("seq") == seq

    async def _read(self, subject: str) -> _Latest:
        message = await self._message(subject)
        if message is None:
            return _NOTHING
        data = base64.b64decode(message.get("data", ""))
        return _Latest(int(message["seq"]), _revision(data, subject), _digest(data))

    async def _message(self, subject: str) -> dict[str, Any] | None:
        """The latest message of a subject, from the stream's leader: a replica that lags may answer a direct get."""
        try:
            answer = await api.call(self._link, f"STREAM.MSG.GET.{streams.STATUS}", {"last_by_subj": subject})
        except api.JetStreamError as error:
            if error.err_code == api.NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = answer["message"]
        return message

    async def _is_stored(self, subject: str, data: bytes, latest: _Latest) -> bool:
        """Whether the subject's latest message is this document, whole or shortened."""
        item = Item(subject, data, {}, document=True)
        short = await item.fit(self._publisher.max_bytes(subject, self._link.client))
        return latest.digest in (_digest(data), b"" if short is None else _digest(short.data))

    def _remember(self, subject: str, latest: _Latest) -> None:
        self._latest[subject] = latest
        self._latest.move_to_end(subject)
        if len(self._latest) > _MAX_REMEMBERED_SUBJECTS:
            self._latest.popitem(last=False)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _revision(data: bytes, subject: str) -> int | None:
    """The `revision` of a document that is stored on its own subject; None for anything else.

    A document of another experiment has none here: anyone who can read it could have had the broker store it here.
    """
    try:
        document = orjson.loads(data)
    except ValueError:
        return None
    own = subject.rpartition(".")[2]
    if not isinstance(document, dict) or document.get("experiment_id", own) != own:
        return None
    revision = document.get("revision")
    return revision if type(revision) is int and 0 <= revision < _MAX_REVISION else None
