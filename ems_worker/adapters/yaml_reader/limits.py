"""The maximum size of documents: it limits the cost of a hostile document, and honest ones stay far below."""

from typing import Final

# A larger message is never a plan.
MAX_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_KEY_LENGTH: Final = 1000
# The values that aliases copy: a text of a few lines can ask for any number of them.
MAX_COPIED: Final = 100_000

# In memory, the text `[],` takes thirty times its size. A document may therefore have 700,000 keys and values, plus one
# for every 16 bytes: enough for a hundred thousand listed points with labels. Reading so many takes a few seconds in
# YAML, and a second in JSON.
_MIN_VALUES: Final = 700_000
_BYTES_PER_VALUE: Final = 16


def max_values(size: int) -> int:
    """The maximum number of keys and values in a document of this size in bytes."""
    return _MIN_VALUES + size // _BYTES_PER_VALUE
