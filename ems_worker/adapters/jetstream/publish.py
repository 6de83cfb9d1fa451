"""Publishing to streams: pipelined, acknowledged, and repeated under the same message id until it is stored."""

import asyncio
import contextlib
from collections.abc import Sequence

import nats.errors

from ems_worker import errors, nats_access
from ems_worker.adapters.jetstream import acks, api, connection
from ems_worker.adapters.jetstream.acks import Answer
from ems_worker.adapters.jetstream.item import Item

ACK_SECONDS = 5.0
GIVE_UP_SECONDS = 20.0
PAUSE_SECONDS = 0.2
# The header for a message's own age limit. Streams of servers from 2.11 on can allow it.
TTL = "Nats-TTL"
_WINDOW = 1000
# Bytes of headers that no message exceeds.
_MOST_HEADERS = 16 * 1024
# How many messages are written at once: other tasks run in between.
_WRITE = 100


class _Round:
    """Messages that were sent together, and the answers to them so far."""

    def __init__(self, size: int) -> None:
        self.answers: list[Answer | None] = [None] * size
        self._unanswered = size
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def put(self, index: int, answer: Answer) -> None:
        if self.answers[index] is None:
            self.answers[index] = answer
            self._unanswered -= 1
        if self._unanswered == 0:
            self.abandon()

    def abandon(self) -> None:
        if not self.done.done():
            self.done.set_result(None)


class Publisher:
    """Stores messages in streams."""

    def __init__(self, link: connection.Connection) -> None:
        self._link = link
        self._inbox = b""
        self._sent = 0
        self._waiting: dict[bytes, tuple[_Round, int]] = {}
        # The message limits of streams, by subject without its last token; known once a stream refused a message.
        self._limits: dict[str, int] = {}
        self._ttl_allowed = True

    async def connected(self, client: nats_access.Client) -> None:
        """Part of `connection.Listener`."""
        inbox = client.new_inbox()
        await client.subscribe_raw(f"{inbox}.*", self._receive)
        self._inbox = inbox.encode()
        self._limits.clear()
        self._ttl_allowed = True

    def lost(self) -> None:
        """Part of `connection.Listener`: what was sent on this connection will get no answer."""
        for round_, _ in list(self._waiting.values()):
            round_.abandon()

    async def store(self, items: Sequence[Item]) -> None:
        """Returns when all messages are stored. Each has a `Nats-Msg-Id`, so sending it again does no harm.

        Raises BrokerUnavailable if no message was stored for a while, and BrokerMisconfigured if the server can't take
        one of them; the other messages are stored then.
        """
        left = list(items)
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + GIVE_UP_SECONDS
        while left:
            sent, waiting = left[:_WINDOW], left[_WINDOW:]
            answers = await self.send(sent)
            failed = [(item, answer) for item, answer in zip(sent, answers, strict=True) if not acks.is_stored(answer)]
            left = [item for item, _ in failed] + waiting
            if len(failed) < len(sent):
                give_up_at = loop.time() + GIVE_UP_SECONDS
            if not failed:
                continue
            if self._ttl_allowed and any(acks.error_code(answer) == api.MESSAGE_TTL_DISABLED for _, answer in failed):
                self._ttl_allowed = False
                continue
            if await self.learn_limits(failed):
                continue
            hopeless = [(item, answer) for item, answer in failed if acks.is_permanent(answer)]
            if len(hopeless) == len(left) or loop.time() > give_up_at:
                raise await self.failure(*(hopeless or failed)[0])
            await asyncio.sleep(PAUSE_SECONDS)

    async def send(self, items: Sequence[Item]) -> list[Answer | None]:
        """Sends the messages once and waits for the answers; None for each that got none in time."""
        round_ = _Round(len(items))
        tokens: list[bytes] = []
        try:
            client = await self._link.ready(ACK_SECONDS)
            messages: list[tuple[bytes, bytes, bytes, bytes]] = []
            limits = {subject: self.max_bytes(subject, client) for subject in {item.subject for item in items}}
            for index, item in enumerate(items):
                limit = limits[item.subject]
                # Most are small; adding up their headers would take longer than the rest.
                if len(item.data) + _MOST_HEADERS > limit:
                    fitting = await item.fit(limit)
                    if fitting is None:
                        round_.put(index, {"error": acks.TOO_LARGE})
                        continue
                    item = fitting  # noqa: PLW2901 - the item as it can be stored
                self._sent += 1
                token = b"%d" % self._sent
                tokens.append(token)
                self._waiting[token] = (round_, index)
                headers = item.headers
                if not self._ttl_allowed and TTL in headers:
                    headers = {name: value for name, value in headers.items() if name != TTL}
                reply = b"%s.%s" % (self._inbox, token)
                messages.append((item.subject.encode(), reply, nats_access.encoded_headers(headers), item.data))
            for start in range(0, len(messages), _WRITE):
                await client.publish_raw(messages[start : start + _WRITE])
            async with asyncio.timeout(ACK_SECONDS):
                await round_.done
        except (TimeoutError, errors.BrokerUnavailable, nats.errors.Error, OSError):
            pass  # the answers that came are kept; the caller sends the rest again
        finally:
            for token in tokens:
                self._waiting.pop(token, None)
        if self._link.connected and (self._link.refusals.any or not all(map(acks.is_stored, round_.answers))):
            self._record_refusals(items, round_.answers)
        return round_.answers

    def max_bytes(self, subject: str, client: nats_access.Client) -> int:
        """The size that a message of this subject may have, as far as we know."""
        return min(client.max_payload, self._limits.get(_kind(subject), client.max_payload))

    async def learn_limits(self, failed: Sequence[tuple[Item, Answer | None]]) -> bool:
        """Looks up the limits of streams that refused a message for its size; whether a limit is lower than we knew."""
        learnt = False
        refused = [item for item, answer in failed if acks.error_code(answer) == api.MESSAGE_TOO_LARGE]
        for kind, subject in {_kind(item.subject): item.subject for item in refused}.items():
            for name in (await api.call(self._link, "STREAM.NAMES", {"subject": subject})).get("streams") or ():
                limit = int((await api.call(self._link, f"STREAM.INFO.{name}"))["config"].get("max_msg_size", -1))
                if 0 < limit < self._limits.get(kind, limit + 1):
                    self._limits[kind] = limit
                    learnt = True
        return learnt

    async def failure(self, item: Item, answer: Answer | None) -> errors.EmsError:
        """The error that says why a message was not stored, with the remedy."""
        if answer is None:
            return errors.BrokerUnavailable(f"the NATS server at {self._link.where} didn't acknowledge {item.subject}")
        if answer["error"] is acks.TOO_LARGE:
            return errors.BrokerMisconfigured(
                f"a message of {item.size:,} bytes for {item.subject} is too large for the NATS server at "
                f"{self._link.where}. Remedy: raise its max_payload, and the stream's max_msg_size if it has one"
            )
        if answer["error"] is not acks.NO_STREAM:
            return api.JetStreamError(f"a message for {item.subject}", answer["error"])
        with contextlib.suppress(errors.BrokerUnavailable):
            if not (await api.call(self._link, "STREAM.NAMES", {"subject": item.subject})).get("streams"):
                return errors.BrokerMisconfigured(
                    f"no stream takes {item.subject}: it was deleted. Remedy: start the worker again, which creates it"
                )
        return errors.BrokerUnavailable(f"no stream took {item.subject}: JetStream isn't ready")

    def _record_refusals(self, items: Sequence[Item], answers: Sequence[Answer | None]) -> None:
        for item, answer in zip(items, answers, strict=True):
            if acks.is_stored(answer) or acks.error_code(answer) == api.WRONG_LAST_SEQUENCE:
                self._link.refusals.resolve(item.subject)
            elif answer is None:
                self._link.refusals.record_silence(item.subject, f"not acknowledged within {ACK_SECONDS:g} s")
            elif not acks.is_permanent(answer):
                error = answer["error"]
                self._link.refusals.record(item.subject, f"{error.get('description')} ({error.get('err_code', 503)})")

    def _receive(self, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        answer = {"error": acks.NO_STREAM} if not data else api.read(data)
        if answer is None or ("error" not in answer and not isinstance(answer.get("seq"), int)):
            return  # a forged acknowledgement; the real one may still come
        if (waiting := self._waiting.pop(subject.rpartition(b".")[2], None)) is not None:
            round_, index = waiting
            round_.put(index, answer)


def _kind(subject: str) -> str:
    return subject.rpartition(".")[0]
