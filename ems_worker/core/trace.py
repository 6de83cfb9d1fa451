"""Trace context (W3C): the header by which the trace of a plan continues through its runs and results."""

import re

HEADER = "traceparent"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def parent(text: str | None) -> str | None:
    """The header's value to pass on; None if it is missing or invalid, because a plan is accepted all the same."""
    return text if text is not None and _FORM.fullmatch(text) else None
