"""JetStream's answers to published messages, and what they mean for the sender."""

from typing import Any

from ems_worker.adapters.jetstream import api

Answer = dict[str, Any]

# Errors that we make ourselves where JetStream gives no answer. They are compared by identity.
NO_STREAM = {"code": 503, "description": "no stream takes this subject"}
TOO_LARGE = {"code": 413, "description": "the server takes no message of this size"}


def is_stored(answer: Answer | None) -> bool:
    """Whether the message is in its stream."""
    return answer is not None and "error" not in answer


def is_permanent(answer: Answer | None) -> bool:
    """Whether sending the message again would get the same error."""
    if answer is None or "error" not in answer:
        return False
    return answer["error"].get("code") not in (500, 503) and error_code(answer) not in api.STORE_IS_FULL


def error_code(answer: Answer | None) -> int | None:
    """JetStream's number of the error; None without an error."""
    return None if answer is None else answer.get("error", {}).get("err_code")
