"""Requests to JetStream's own API, as plain JSON: comparing configurations takes what the server really has."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson

from ems_worker import errors
from ems_worker.adapters.jetstream import connection
from ems_worker.core.documents import subjects

TIMEOUT_SECONDS = 5.0
# The error codes of JetStream that we handle.
SUBJECTS_OVERLAP = 10065
WRONG_LAST_SEQUENCE = 10071
NO_MESSAGE = 10037
MESSAGE_TTL_DISABLED = 10166
MESSAGE_TOO_LARGE = 10054
# The account's limit is reached, memory or disk is full, or the store of a stream fails: an operator can help.
STORE_IS_FULL = frozenset({10002, 10023, 10047, 10077})


class JetStreamError(errors.BrokerUnavailable):
    """JetStream answered with an error. `code` is like an HTTP status, `err_code` is JetStream's own number."""

    def __init__(self, request: str, error: Mapping[str, Any]) -> None:
        self.code = _number(error.get("code"), 500)
        self.err_code = _number(error.get("err_code"), 0)
        self.description = str(error.get("description", ""))
        super().__init__(f"JetStream refused {request}: {self.description} ({self.err_code or self.code})")

    @property
    def missing(self) -> bool:
        return self.code == 404


async def call(link: connection.Connection, verb: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The answer to `$JS.API.{verb}`.

    Raises JetStreamError for errors of JetStream, and BrokerUnavailable where no answer comes.
    """
    data = orjson.dumps(body) if body is not None else b""
    try:
        reply = await link.request(f"{subjects.JETSTREAM_API}.{verb}", data, TIMEOUT_SECONDS)
    except connection.NoResponders as error:
        raise errors.BrokerUnavailable(
            f"the NATS server at {link.where} has no JetStream (or is still starting it); "
            "enable it with `jetstream {}` in its configuration"
        ) from error
    answer = read(reply.data)
    if answer is None:
        raise errors.BrokerUnavailable(f"JetStream answered {verb} with something that isn't a JSON object")
    if "error" in answer:
        raise JetStreamError(verb, answer["error"])
    return answer


def read(data: bytes) -> dict[str, Any] | None:
    """An answer of JetStream, whose `error`, if any, is a mapping; None for anything else."""
    try:
        answer = orjson.loads(data)
    except ValueError:
        return None
    if not isinstance(answer, dict) or not isinstance(answer.get("error", {}), dict):
        return None
    return answer


def _number(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


async def find(link: connection.Connection, verb: str) -> dict[str, Any] | None:
    """Like `call`, but returns None where JetStream has no such stream or consumer."""
    try:
        return await call(link, verb)
    except JetStreamError as error:
        if error.missing:
            return None
        raise


def nanoseconds(timestamp: str) -> int:
    """Nanoseconds since the Unix epoch of a time as Go writes it: RFC 3339 with up to nine decimal places."""
    digits = ""
    if "." in timestamp:
        head, _, tail = timestamp.partition(".")
        digits = tail[: len(tail) - len(tail.lstrip("0123456789"))]
        timestamp = head + tail[len(digits) :]
    seconds = int(datetime.fromisoformat(timestamp).timestamp())
    return seconds * 1_000_000_000 + int(digits.ljust(9, "0")[:9])
