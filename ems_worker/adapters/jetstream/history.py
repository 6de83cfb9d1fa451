"""What the stream of results has: changes, settled rounds and ends of jobs, one after another."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any

import orjson

from ems_worker.adapters.jetstream import api, connection
from ems_worker.core.documents import documents, subjects, titles
from ems_worker.core.wire import PublishedChange, PublishedResult, PublishedRound

_VERB = f"STREAM.MSG.GET.{subjects.RESULTS_STREAM}"


async def changes(link: connection.Connection, after_seq: int) -> list[PublishedChange]:
    """The changes that are stored after this sequence, oldest first; what isn't a change of its subject is left out.

    Raises errors.BrokerUnavailable.
    """
    stored = _stored(link, f"{subjects.CHANGE}.*", after_seq)
    return [change async for message in stored if (change := _change(message)) is not None]


async def rounds(link: connection.Connection, after_seq: int) -> list[PublishedRound]:
    """The rounds that settled after this sequence, oldest first. Raises errors.BrokerUnavailable."""
    stored = _stored(link, f"{subjects.SETTLED}.*", after_seq)
    return [settled async for message in stored if (settled := _round(message)) is not None]


async def results(link: connection.Connection, after_seq: int) -> AsyncIterator[PublishedResult]:
    """The results that are stored after this sequence, oldest first; what isn't a result of its subject is left out.

    Raises errors.BrokerUnavailable.
    """
    async for message in _stored(link, f"{subjects.RESULT}.*", after_seq):
        if (result := _result(message)) is not None:
            yield result


async def settled_round(link: connection.Connection, experiment_id: str, since_ms: int) -> int | None:
    """The round in the last document about a settled round of this experiment; None without one since this time.

    Raises errors.BrokerUnavailable.
    """
    message = await _message(link, {"last_by_subj": f"{subjects.SETTLED}.{experiment_id}"})
    document = None if message is None else _document(message, titles.SETTLED)
    if document is None:
        return None
    number, settled_at = document.get("round"), document.get("settled_at")
    if type(number) is not int or not isinstance(settled_at, str):
        return None
    # Times of this form sort as text.
    return number if settled_at >= (documents.timestamp(since_ms) or "") else None


async def _stored(link: connection.Connection, subject: str, after_seq: int) -> AsyncIterator[Mapping[str, Any]]:
    seq = after_seq
    while (message := await _message(link, {"seq": seq + 1, "next_by_subj": subject})) is not None:
        seq = int(message["seq"])
        yield message


async def _message(link: connection.Connection, which: Mapping[str, Any]) -> Mapping[str, Any] | None:
    try:
        answer = await api.call(link, _VERB, which)
    except api.JetStreamError as error:
        if error.err_code == api.NO_MESSAGE:
            return None
        raise
    message: Mapping[str, Any] = answer["message"]
    return message


def _document(message: Mapping[str, Any], schema: str) -> dict[str, Any] | None:
    """The content of a message if it is a document of this schema about the experiment that its subject names."""
    try:
        document = orjson.loads(base64.b64decode(message.get("data", "")))
    except ValueError:
        return None
    experiment_id = str(message["subject"]).rpartition(".")[2]
    if not isinstance(document, dict):
        return None
    return document if (document.get("schema"), document.get("experiment_id")) == (schema, experiment_id) else None


def _change(message: Mapping[str, Any]) -> PublishedChange | None:
    document = _document(message, titles.CHANGE)
    if document is None:
        return None
    if not isinstance(document.get("request_id"), str) or not isinstance(document.get("request"), dict):
        return None
    return PublishedChange(int(message["seq"]), _stored_ms(message), document["experiment_id"], document)


def _round(message: Mapping[str, Any]) -> PublishedRound | None:
    document = _document(message, titles.SETTLED)
    if document is None or type(number := document.get("round")) is not int:
        return None
    return PublishedRound(int(message["seq"]), _stored_ms(message), document["experiment_id"], number)


def _stored_ms(message: Mapping[str, Any]) -> int:
    return api.nanoseconds(message["time"]) // 1_000_000


def _result(message: Mapping[str, Any]) -> PublishedResult | None:
    document = _document(message, titles.RESULT)
    if document is None:
        return None
    name, revision, state = document.get("simulation_id"), document.get("job_revision"), document.get("state")
    if not isinstance(name, str) or type(revision) is not int or not isinstance(state, str):
        return None
    excluded = document.get("excluded")
    return PublishedResult(name, revision, state, excluded if isinstance(excluded, str) else None)
