"""Trace context: the one header that lets a plan's trace go on through its runs and results (W3C Trace Context)."""

import re

HEADER = "traceparent"
_FORM = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def parent(text: str | None) -> str | None:
    """The header's value as it is passed on; None for none, or something else: that is no reason to refuse a plan."""
    return text if text is not None and _FORM.fullmatch(text) else None
