"""The size of values that expressions use, so that no expression takes long."""

from typing import Final

# The number of values inside a list or mapping, at any depth, and of characters in a text.
MAX: Final = 1000
# The number of characters that are compared in the time of one value.
_CHARACTERS_PER_VALUE: Final = 1000


def of(value: object) -> int | None:
    """The number of values inside, with long texts counted as some; None if that is too many for an expression."""
    inside = characters = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if len(item) > MAX:
                return None
            characters += len(item)
        elif isinstance(item, list | dict):
            inside += len(item)
            if inside > MAX:
                return None
            waiting += item
            waiting += item.values() if isinstance(item, dict) else ()
    return inside + characters // _CHARACTERS_PER_VALUE
