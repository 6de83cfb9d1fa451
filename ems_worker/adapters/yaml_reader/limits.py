"""How large a document may be: bounds on what a hostile one costs, far above what an honest one needs."""

from typing import Final

# Over this a message is no plan at all, whatever it says.
MOST_BYTES: Final = 32 * 1024 * 1024
# YAML is read a hundred times slower than JSON: a document of this size takes some four seconds.
MOST_YAML_BYTES: Final = 4 * 1024 * 1024
MOST_DEPTH: Final = 64
MOST_NODES: Final = 4_000_000
MOST_YAML_NODES: Final = 100_000
LONGEST_KEY: Final = 1000
