"""Publishing to streams: pipelined, acknowledged, sent again under the same message id until it is stored."""

import asyncio
import base64
import contextlib
import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import nats.errors
import orjson
from nats.aio.client import Client
from nats.aio.msg import Msg

from ems_worker import errors
from ems_worker.adapters.jetstream import api, connection, streams
from ems_worker.adapters.jetstream.item import Item
from ems_worker.core.documents import subjects

_WINDOW = 1000
_ACK_SECONDS = 5.0
_GIVE_UP_SECONDS = 20.0
_PAUSE_SECONDS = 0.2
_REMEMBERED_SUBJECTS = 10_000
# No revision of ours: what JSON's numbers hold exactly ends here.
_TOO_HIGH = 2**53
# A message's own age limit; for streams that allow it (servers from 2.11 on).
TTL = "Nats-TTL"
_NO_STREAM = {"code": 503, "description": "no stream takes this subject"}
_TOO_LARGE = {"code": 413, "description": "the server takes no message of this size"}

Answer = dict[str, Any]


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
        # What streams limit their messages to, by their subjects without the last token; known once one was refused.
        self._limits: dict[str, int] = {}
        self._expiring = True

    async def connected(self, client: Client) -> None:
        """Part of `connection.Listener`."""
        inbox = client.new_inbox()
        await client.subscribe(f"{inbox}.*", cb=self._receive)
        self._inbox = inbox
        self._limits.clear()
        self._expiring = True

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
            if self._expiring and any(_code(answer) == api.MESSAGE_TTL_DISABLED for _, answer in failed):
                self._expiring = False
                continue
            if await self._learn_limits(failed):
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
                return latest.revision == revision and await self._is_told(subject, data, latest)
            item = Item(subject, data, {"Nats-Expected-Last-Subject-Sequence": str(latest.seq)}, document=True)
            answer = (await self._round([item]))[0]
            if answer is not None and "error" not in answer:
                self._remember(subject, _Latest(int(answer["seq"]), revision, _digest(data)))
                return True
            if _code(answer) == api.WRONG_LAST_SEQUENCE:
                self._remember(subject, await self._stored(subject))
                continue
            if await self._learn_limits([(item, answer)]):
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
                item = await whole.fit(self._most(whole.subject, client))
                if item is None:
                    sent.put(index, {"error": _TOO_LARGE})
                    continue
                self._sent += 1
                token = str(self._sent)
                tokens.append(token)
                self._waiting[token] = (sent, index)
                headers = {name: value for name, value in item.headers.items() if self._expiring or name != TTL}
                await client.publish(item.subject, item.data, reply=f"{self._inbox}.{token}", headers=headers)
            async with asyncio.timeout(_ACK_SECONDS):
                await sent.done
        except (TimeoutError, errors.BrokerUnavailable, nats.errors.Error, OSError):
            pass  # what was answered was answered; the rest is sent again
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
        if self._link.connected:
            self._note_refusals(items, sent.answers)
        return sent.answers

    def _note_refusals(self, items: Sequence[Item], answers: Sequence[Answer | None]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if _is_stored(answer) or _code(answer) == api.WRONG_LAST_SEQUENCE:
                self._link.refusals.over(item.subject)
            elif answer is None:
                self._link.refusals.note_silence(item.subject, f"not acknowledged within {_ACK_SECONDS:g} s")
            elif not _is_permanent(answer):
                error = answer["error"]
                self._link.refusals.note(item.subject, f"{error.get('description')} ({error.get('err_code', 503)})")

    def _most(self, subject: str, client: Client) -> int:
        """How large a message of this subject may be, as far as is known."""
        return min(client.max_payload, self._limits.get(_kind(subject), client.max_payload))

    async def _learn_limits(self, failed: Sequence[tuple[Item, Answer | None]]) -> bool:
        """Looks up limits of streams that refused a message for its size; whether one is lower than was known."""
        learnt = False
        refused = [item for item, answer in failed if _code(answer) == api.MESSAGE_TOO_LARGE]
        for kind, subject in {_kind(item.subject): item.subject for item in refused}.items():
            for name in (await api.call(self._link, "STREAM.NAMES", {"subject": subject})).get("streams") or ():
                limit = int((await api.call(self._link, f"STREAM.INFO.{name}"))["config"].get("max_msg_size", -1))
                if 0 < limit < self._limits.get(kind, limit + 1):
                    self._limits[kind] = limit
                    learnt = True
        return learnt

    async def _receive(self, msg: Msg) -> None:
        answer = {"error": _NO_STREAM} if not msg.data else api.read(msg.data)
        if answer is None or ("error" not in answer and not isinstance(answer.get("seq"), int)):
            return  # no acknowledgement, whoever sent it: the real one may still come
        if (found := self._waiting.pop(msg.subject.rpartition(".")[2], None)) is not None:
            found[0].put(found[1], answer)

    async def stored_revision(self, subject: str) -> int | None:
        """The `revision` of the message that a subject has now; None where there is none."""
        found = await self._stored(subject)
        # Or what comes next would be refused by what was there before.
        self._remember(subject, found)
        return found.revision

    async def has_decision(self, seq: int) -> bool:
        """Whether there is a decision about the plan of this sequence. Whatever else somebody had put there is none."""
        message = await self._message(f"{subjects.DECISION}.{seq}")
        document = None if message is None else api.read(base64.b64decode(message.get("data", "")))
        submission = None if document is None else document.get("submission")
        return isinstance(submission, dict) and submission.get("seq") == seq

    async def _stored(self, subject: str) -> _Latest:
        """What a subject has now."""
        message = await self._message(subject)
        if message is None:
            return _NOTHING
        data = base64.b64decode(message.get("data", ""))
        return _Latest(int(message["seq"]), _revision(data, subject), _digest(data))

    async def _message(self, subject: str) -> dict[str, Any] | None:
        """The message that a subject of the stream of statuses has now.

        Asked of the stream's leader: a direct get may be answered by a replica that is behind.
        """
        try:
            found = await api.call(self._link, f"STREAM.MSG.GET.{streams.STATUS}", {"last_by_subj": subject})
        except api.Refused as refused:
            if refused.err_code == api.NO_MESSAGE:
                return None
            raise
        message: dict[str, Any] = found["message"]
        return message

    async def _is_told(self, subject: str, data: bytes, latest: _Latest) -> bool:
        """Whether this is what the subject has."""
        item = Item(subject, data, {}, document=True)
        short = await item.fit(self._most(subject, self._link.client))
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
                f"{self._link.where}. Remedy: raise its max_payload, and the stream's max_msg_size where it has one"
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
    if answer is None or "error" not in answer:
        return False
    return answer["error"].get("code") not in (500, 503) and _code(answer) not in api.STORE_IS_FULL


def _code(answer: Answer | None) -> int | None:
    """JetStream's number of the error; None for none."""
    return None if answer is None else answer.get("error", {}).get("err_code")


def _kind(subject: str) -> str:
    return subject.rpartition(".")[0]


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def _revision(data: bytes, subject: str) -> int | None:
    """The `revision` of a document stored on its subject; None for what isn't one of ours.

    Another experiment's is none: whoever may read it could have the broker send it here.
    """
    try:
        document = orjson.loads(data)
    except ValueError:
        return None
    own = subject.rpartition(".")[2]
    if not isinstance(document, dict) or document.get("experiment_id", own) != own:
        return None
    revision = document.get("revision")
    return revision if type(revision) is int and 0 <= revision < _TOO_HIGH else None
