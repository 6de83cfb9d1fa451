"""Which subjects the worker sends replies to.

The sender of a request chooses the subject of the reply, and the broker only checks whether the worker may publish to
it. Without this rule any client that may send a request could make the worker delete a stream, end a run or forge an
acknowledgement: the worker would be a confused deputy (N. Hardy, Operating Systems Review 22, 1988).
"""

from collections.abc import Sequence

MAX_BYTES = 256


def refusal(subject: str, prefixes: Sequence[str], own_inbox: str) -> str | None:
    """Why no reply may be sent to `subject`; None if it may.

    `prefixes` end with a dot. `own_inbox` is the subject below which the worker receives pulled messages,
    acknowledgements and answers of JetStream: a reply sent there would look like one of them.
    """
    if not subject:
        return "there is no reply subject"
    # Characters first: a subject of megabytes need not be encoded.
    if len(subject) > MAX_BYTES or len(subject.encode("utf-8", "replace")) > MAX_BYTES:
        return f"it is longer than {MAX_BYTES} bytes"
    if not subject.isprintable() or any(character.isspace() for character in subject):
        return "it has white space or unprintable characters"
    tokens = subject.split(".")
    if not all(tokens):
        return "it has an empty token"
    if any("*" in token or ">" in token for token in tokens):
        return "it has wildcards"
    if not subject.startswith(tuple(prefixes)):
        return "it is under none of the allowed inbox prefixes (EMS_REPLY_PREFIXES)"
    if subject == own_inbox or subject.startswith(f"{own_inbox}."):
        return "it is one of the worker's own inboxes"
    return None
