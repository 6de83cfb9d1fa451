"""What the stream of results has: the changes of experiments, one after another, and the last round that settled."""

import base64
from collections.abc import Mapping
from typing import Any

from ems_worker.adapters.jetstream import api, connection
from ems_worker.core.documents import documents, subjects, titles
from ems_worker.core.wire import PublishedChange

_SUBJECT = f"{subjects.CHANGE}.*"
_VERB = f"STREAM.MSG.GET.{subjects.RESULTS_STREAM}"


async def changes(link: connection.Connection, after_seq: int) -> list[PublishedChange]:
    """The changes that are stored after this sequence, oldest first; what isn't a change of its subject is left out.

    Raises errors.BrokerUnavailable.
    """
    found: list[PublishedChange] = []
    seq = after_seq
    while True:
        try:
            answer = await api.call(link, _VERB, {"seq": seq + 1, "next_by_subj": _SUBJECT})
        except api.JetStreamError as error:
            if error.err_code == api.NO_MESSAGE:
                return found
            raise
        message: Mapping[str, Any] = answer["message"]
        seq = int(message["seq"])
        if (change := _change(message)) is not None:
            found.append(change)


async def settled_round(link: connection.Connection, experiment_id: str, since_ms: int) -> int | None:
    """The round in the last document about a settled round of this experiment; None without one since this time.

    Raises errors.BrokerUnavailable.
    """
    try:
        answer = await api.call(link, _VERB, {"last_by_subj": f"{subjects.SETTLED}.{experiment_id}"})
    except api.JetStreamError as error:
        if error.err_code == api.NO_MESSAGE:
            return None
        raise
    document = api.read(base64.b64decode(answer["message"].get("data", "")))
    if document is None or (document.get("schema"), document.get("experiment_id")) != (titles.SETTLED, experiment_id):
        return None
    number, settled_at = document.get("round"), document.get("settled_at")
    if type(number) is not int or not isinstance(settled_at, str):
        return None
    # Times of this form sort as text.
    return number if settled_at >= (documents.timestamp(since_ms) or "") else None


def _change(message: Mapping[str, Any]) -> PublishedChange | None:
    document = api.read(base64.b64decode(message.get("data", "")))
    experiment_id = str(message["subject"]).rpartition(".")[2]
    if document is None or (document.get("schema"), document.get("experiment_id")) != (titles.CHANGE, experiment_id):
        return None
    if not isinstance(document.get("request_id"), str) or not isinstance(document.get("request"), dict):
        return None
    return PublishedChange(experiment_id, document, api.nanoseconds(message["time"]) // 1_000_000)
