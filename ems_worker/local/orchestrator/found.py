"""Finds the metrics of a program that knows nothing of the simulator protocol. Pure."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

# A larger file isn't a file of metrics.
LIMIT_BYTES: Final = 256 * 1024
_PAIR: Final = re.compile(r"([A-Za-z_][\w./@%-]*)=([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)")
_NOT_FINITE: Final = re.compile(r"[A-Za-z_][\w./@%-]*=[+-]?(?:nan|inf|infinity)", re.IGNORECASE)
_AROUND_EQUALS: Final = re.compile(r"(?<=\S) ?= ?(?=\S)")


def metrics(stdout: bytes, file: bytes | None) -> dict[str, float]:
    """The numbers that a program reports. The first of these that has any counts:

    the object in its file `metrics.json`, the last line of its output that is a JSON object with numbers, and all lines
    of its output that have only `NAME=NUMBER`; of equal names the last.
    """
    if file is not None and len(file) <= LIMIT_BYTES and (numbers := _numbers(file)):
        return numbers
    lines = stdout.splitlines()
    for line in reversed(lines):
        if line.lstrip().startswith(b"{") and (numbers := _numbers(line)):
            return numbers
    return {name: value for line in lines for name, value in _pairs(line.decode(errors="replace")).items()}


def _numbers(text: bytes) -> dict[str, float]:
    """The finite numbers of a JSON object, or of its `metrics`; none if the text is something else."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(document, Mapping) and isinstance(document.get("metrics"), Mapping):
        document = document["metrics"]
    if not isinstance(document, Mapping):
        return {}
    numbers = ((name, _number(value)) for name, value in document.items() if _is_text(name))
    return {name: number for name, number in numbers if number is not None}


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _is_text(name: str) -> bool:
    """Whether the name is Unicode: JSON can express a lone surrogate, but messages can't."""
    return name.isprintable() and name != ""


def _pairs(line: str) -> dict[str, float]:
    """The numbers of a line such as `loss=0.1, accuracy = 0.9`; none if anything else is in it."""
    found: dict[str, float] = {}
    for word in _AROUND_EQUALS.sub("=", line).replace(",", " ").replace(";", " ").split():
        if pair := _PAIR.fullmatch(word):
            if math.isfinite(value := float(pair[2])):
                found[pair[1]] = value
        elif not _NOT_FINITE.fullmatch(word):
            return {}
    return found
