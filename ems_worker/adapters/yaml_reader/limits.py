"""How large a document may be: bounds on what a hostile one costs, far above what an honest one needs."""

from typing import Final

# Over this a message is no plan at all, whatever it says.
MOST_BYTES: Final = 32 * 1024 * 1024
# YAML is read a hundred times slower than JSON: a document of this size takes some four seconds.
MOST_YAML_BYTES: Final = 4 * 1024 * 1024
MOST_DEPTH: Final = 64
MOST_YAML_NODES: Final = 100_000
LONGEST_KEY: Final = 1000

# Of JSON: what `[],` takes in memory is thirty times its text. Beyond 700,000 keys and values a document has at most
# one more for every 16 bytes: enough for a hundred thousand listed points with labels.
_MOST_VALUES: Final = 700_000
_BYTES_A_VALUE: Final = 16


def most_values(size: int) -> int:
    """How many keys and values a JSON document of so many bytes has at most."""
    return _MOST_VALUES + size // _BYTES_A_VALUE
