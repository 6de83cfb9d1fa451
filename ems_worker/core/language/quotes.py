"""How messages show values, locations and characters of a plan."""

import math
import unicodedata
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Final

Location = tuple[str | int, ...]

_MAX_QUOTE: Final = 60
# Of a path: each key, and all of them.
_MAX_STEP: Final = 200
_MAX_PATH: Final = 1000
# Strange characters of a key that a message names, and how far into the key it looks for them.
_MAX_NAMED: Final = 3
_MAX_SEARCHED: Final = 200


def dotted(location: Location) -> str:
    """The location as a dotted path: `limits.max_attempts`, `runs.0.params_override`."""
    return ".".join(map(str, location))


def path(location: Location) -> str:
    """The location as a problem shows it: keys of any length are possible, and messages are not."""
    return cut(".".join(cut(str(step), _MAX_STEP) for step in location), _MAX_PATH)


def cut(text: str, length: int) -> str:
    """The text, shortened to fit into a message."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def name(text: str) -> str:
    """A name or path in quotes; it's cut only where no message could hold it."""
    return repr(cut(text, _MAX_STEP))


def non_ascii(key: str) -> str:
    """Names the non-ASCII characters of a key: keys of plans are ASCII, and many other characters look like it."""
    strange = [char for char in key[:_MAX_SEARCHED] if not char.isascii()]
    if not strange:
        return ""
    names = ", ".join(f"U+{ord(char):04X} {unicodedata.name(char, 'unnamed')}" for char in strange[:_MAX_NAMED])
    return f" (it contains {names})"


def brief(value: object) -> str:
    """The value as a plan writes it, shortened to fit into a message."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > _MAX_QUOTE:
            break
    return cut(text, _MAX_QUOTE)


def _pieces(value: object) -> Iterator[str]:
    """The value's `repr`, piece by piece: for a huge value, only the part that is shown is built."""
    if isinstance(value, str):
        yield repr(value[: _MAX_QUOTE + 1])
    elif isinstance(value, Mapping):
        for index, (key, inner) in enumerate(value.items()):
            yield ", " if index else "{"
            yield from _pieces(key)
            yield ": "
            yield from _pieces(inner)
        yield "}" if value else "{}"
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield ", " if index else "["
            yield from _pieces(inner)
        yield "]" if value else "[]"
    elif isinstance(value, int) and value.bit_length() >= 256:
        yield "a number of many digits"
    elif isinstance(value, Decimal):
        number = float(value)
        yield repr(number) if math.isfinite(number) else str(value)
    else:
        yield repr(value)


def describe(value: object) -> str:
    """The value's type in the words of a plan, and the value itself if it is a scalar: `the number 5`, `a list`."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float() | Decimal():
            return f"the number {brief(value)}"
        case str():
            return f"the text {brief(value)}"
        case Mapping():
            return "a mapping"
        case _:
            return "a list"
