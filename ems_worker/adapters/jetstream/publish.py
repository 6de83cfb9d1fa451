"""Publishing to streams: pipelined, acknowledged, sent again under the same message id until it is stored."""

import asyncio
import base64
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams
from ems_worker.core import fitting

_WINDOW = 1000
_ACK_SECONDS = 5.0
_GIVE_UP_SECONDS = 20.0
_PAUSE_SECONDS = 0.2
_REMEMBERED_SUBJECTS = 10_000
# No revision of ours: what JSON's numbers hold exactly ends here.
_TOO_HIGH = 2**53
# What the protocol adds to headers and payload of a message on its way.
_SLACK_BYTES = 512
# What is left for the headers of a document that is shortened; always the same, so that it always becomes the same.
_HEADERS_BYTES = 1024
_NO_STREAM = {"code": 503, "description": "no stream takes this subject"}
_TOO_LARGE = {"code": 413, "description": "the server takes no message of this size"}

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Item:
    """A message to be stored. A document goes out shortened where the server would not take it whole."""

    subject: str
    data: bytes
    headers: Mapping[str, str]
    document: bool = False

    @property
    def size(self) -> int:
        return len(self.data) + sum(len(k.encode()) + len(v.encode()) + 4 for k, v in self.headers.items())

    def within(self, most: int) -> "Item | None":
        """As a server can take it whose messages have at most so many bytes; None where there is no way."""
        if self.size + _SLACK_BYTES <= most:
            return self
        data = fitting.fitted(self.data, most - _SLACK_BYTES - _HEADERS_BYTES) if self.document else None
        return None if data is None else replace(self, data=data)


@dataclass(frozen=True, slots=True)
class _Latest:
    """What is known of the one message of a subject; `revision` is None where there is none, or none of ours."""

    seq: int
    revision: int | None
    digest: bytes


_NOTHING = _Latest(0, None, b"")


class _Round:
    """Messages that were sent together, and the answers that came."""

    def __init__(self, size: int) -> None:
        self.answers: list[Answer | None] = [None] * size
        self._left = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, index: int, answer: Answer) -> None:
        if self.answers[index] is None:
            self.answers[index] = answer
            self._left -= 1
        if self._left == 0:
            self.abandon()

    def abandon(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Publisher:
    """Stores messages in streams."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._inbox = ""
        self._sent = 0
        self._waiting: dict[str, tuple[_Round, int]] = {}
        self._last: OrderedDict[str, _Latest] = OrderedDict()

    async def connected(self, client: Client) -> None:
        """Part of `connection.Listener`."""
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._receive)
        self._inbox = inbox

    def lost(self) -> None:
        """Part of `connection.Listener`: no answer will come to what was sent on it."""
        for sent, _ in list(self._waiting.values()):
            sent.abandon()

    async def store(self, items: Sequence[Item]) -> None:
        """Returns when all are stored; each has a `Nats-Msg-Id`, so sending it again does no harm.

        Raises BrokerUnavailable when some weren't for a while, BrokerMisconfigured for one that the server can't take;
        the others are stored then.
        """
        left = list(items)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _GIVE_UP_SECONDS
        while left:
            sent, waiting = left[:_WINDOW], left[_WINDOW:]
            answers = await self._round(sent)
            failed = [(item, answer) for item, answer in zip(sent, answers, strict=True) if not _is_stored(answer)]
            left = [item for item, _ in failed] + waiting
            if len(failed) < len(sent):
                give_up_at = loop.time() + _GIVE_UP_SECONDS
            if not failed:
                continue
            hopeless = [(item, answer) for item, answer in failed if _is_permanent(answer)]
            if len(hopeless) == len(left) or loop.time() > give_up_at:
                raise await self._trouble(*(hopeless or failed)[0])
            await asyncio.sleep(_PAUSE_SECONDS)

    async def store_latest(self, subject: str, data: bytes, revision: int) -> bool:
        """Makes `data` the one message of its subject; False where another of this or a higher `revision` is there.

        The same that is there already (its acknowledgement got lost) is as good as stored. Each write names the
        sequence that it replaces, so neither an old status that was delayed nor another worker's can overwrite a newer
        one. Raises as `store` does.
        """
        give_up_at = asyncio.get_running_loop().time() + _GIVE_UP_SECONDS
        while True:
            latest = self._last.get(subject, _NOTHING)
            if latest.revision is not None and latest.revision >= revision:
                return latest.revision == revision and await self._is_told(data, latest)
            item = Item(subject, data, {"Nats-Expected-Last-Subject-Sequence": str(latest.seq)}, document=True)
            answer = (await self._round([item]))[0]
            if answer is not None and "error" not in answer:
                self._remember(subject, _Latest(int(answer["seq"]), revision, _digest(data)))
                return True
            if answer is not None and answer["error"].get("err_code") == api.WRONG_LAST_SEQUENCE:
                self._remember(subject, await self._stored(subject))
                continue
            if _is_permanent(answer) or asyncio.get_running_loop().time() > give_up_at:
                raise await self._trouble(item, answer)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _round(self, items: Sequence[Item]) -> list[Answer | None]:
        """Sends all, waits for the answers; None where none came in time."""
        sent = _Round(len(items))
        tokens = []
        try:
            client = await self._link.ready(_ACK_SECONDS)
            for index, whole in enumerate(items):
                item = await _within(whole, client.max_payload)
                if item is None:
                    sent.put(index, {"error": _TOO_LARGE})
                    continue
                self._sent += 1
                token = str(self._sent)
                tokens.append(token)
                self._waiting[token] = (sent, index)
                await client.publish(
                    item.subject, item.data, reply=f"{self._inbox}.{token}", headers=dict(item.headers)
                )
            async with asyncio.timeout(_ACK_SECONDS):
                await sent.done
        except (TimeoutError, errors.BrokerUnavailable, nats.errors.Error, OSError):
            pass  # what was answered was answered; the rest is sent again
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
        return sent.answers

    async def _receive(self, msg: Msg) -> None:
        found = self._waiting.pop(msg.subject.rpartition(".")[2], None)
        if found is None:
            return
        if not msg.data:
            answer: Answer = {"error": _NO_STREAM}
        else:
            answer = orjson.loads(msg.data)
        found[0].put(found[1], answer)

    async def stored_revision(self, subject: str) -> int | None:
        """The `revision` of the message that a subject has now; None where there is none."""
        found = await self._stored(subject)
        # Or what comes next would be refused by what was there before.
        self._remember(subject, found)
        return found.revision

    async def is_stored(self, subject: str) -> bool:
        """Whether a subject of the stream of statuses has a message."""
        return await self._stored(subject) is not _NOTHING

    async def _stored(self, subject: str) -> _Latest:
        """What a subject has now.

        Asked of the stream's leader: a direct get may be answered by a replica that is behind.
        """
        try:
            found = await api.call(self._link, f"STREAM.MSG.GET.{streams.STATUS}", {"last_by_subj": subject})
        except api.Refused as refused:
            if refused.err_code == api.NO_MESSAGE:
                return _NOTHING
            raise
        message = found["message"]
        data = base64.b64decode(message.get("data", ""))
        return _Latest(int(message["seq"]), _revision(data), _digest(data))

    async def _is_told(self, data: bytes, latest: _Latest) -> bool:
        """Whether this is what the subject has."""
        short = await _within(Item("", data, {}, document=True), self._link.max_payload)
        return latest.digest in (_digest(data), b"" if short is None else _digest(short.data))

    def _remember(self, subject: str, latest: _Latest) -> None:
        self._last[subject] = latest
        self._last.move_to_end(subject)
        if len(self._last) > _REMEMBERED_SUBJECTS:
            self._last.popitem(last=False)

    async def _trouble(self, item: Item, answer: Answer | None) -> errors.EmsError:
        if answer is None:
            return errors.BrokerUnavailable(f"the NATS server at {self._link.where} didn't acknowledge {item.subject}")
        if answer["error"] is _TOO_LARGE:
            return errors.BrokerMisconfigured(
                f"a message of {item.size} bytes for {item.subject} is too large for the NATS server at "
                f"{self._link.where}. Remedy: raise its max_payload"
            )
        if answer["error"] is not _NO_STREAM:
            return api.Refused(f"a message for {item.subject}", answer["error"])
        with contextlib.suppress(errors.BrokerUnavailable):
            if not (await api.call(self._link, "STREAM.NAMES", {"subject": item.subject})).get("streams"):
                return errors.BrokerMisconfigured(
                    f"no stream takes {item.subject}: it was deleted. Remedy: start the worker again, which creates it"
                )
        return errors.BrokerUnavailable(f"no stream took {item.subject}: JetStream isn't ready")


def _is_stored(answer: Answer | None) -> bool:
    return answer is not None and "error" not in answer


def _is_permanent(answer: Answer | None) -> bool:
    """Whether asking again would bring the same."""
    return answer is not None and "error" in answer and answer["error"]["code"] not in (500, 503)


async def _within(item: Item, most: int) -> Item | None:
    """`Item.within`; in a thread where it takes a while."""
    return item if item.size + _SLACK_BYTES <= most else await asyncio.to_thread(item.within, most)


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _revision(data: bytes) -> int | None:
    """The `revision` of a stored document; None for what isn't one of ours."""
    try:
        document = orjson.loads(data)
    except ValueError:
        return None
    revision = document.get("revision") if isinstance(document, dict) else None
    return revision if isinstance(revision, int) and revision < _TOO_HIGH else None
