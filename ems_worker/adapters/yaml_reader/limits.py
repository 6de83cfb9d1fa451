"""The maximum size of documents: it limits the cost of a hostile document, and honest ones stay far below."""

from typing import Final

# A larger message is never a plan.
MAX_BYTES: Final = 32 * 1024 * 1024
# Reading YAML takes a hundred times as long as JSON: about four seconds for a document of this size.
MAX_YAML_BYTES: Final = 4 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_YAML_NODES: Final = 100_000
MAX_KEY_LENGTH: Final = 1000

# In memory, the JSON text `[],` takes thirty times its size. A document may therefore have 700,000 keys and values,
# plus one for every 16 bytes: enough for a hundred thousand listed points with labels.
_MIN_VALUES: Final = 700_000
_BYTES_PER_VALUE: Final = 16


def max_values(size: int) -> int:
    """The maximum number of keys and values in a JSON document of this size."""
    return _MIN_VALUES + size // _BYTES_PER_VALUE
