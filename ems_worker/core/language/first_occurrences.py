"""The first of equal entries, in columns too long to keep all that was seen: 13 bytes an entry meanwhile, then one."""

import hashlib
from array import array
from collections.abc import Generator, Sequence
from itertools import accumulate
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import ranges

_BUCKETS: Final = 256
# How much is done between two words of it: some 10 ms.
_STEP: Final = 2_000


def marks(columns: Sequence[Sequence[canonical.JSON]], size: int) -> bytearray:
    """As `find`, without steps."""
    finding = find(columns, size)
    while True:
        try:
            next(finding)
        except StopIteration as found:
            return bytearray(found.value)


def find(columns: Sequence[Sequence[canonical.JSON]], size: int) -> Generator[None, None, bytearray]:
    """A mark for each of `size` entries, 1 if it is the first with its values; no marks if all are. Works in steps.

    Values are told apart by eight bytes of a digest, bucket by bucket.
    """
    if any(isinstance(column, ranges.Spaced) and not column.dense for column in columns):
        return bytearray()
    digests = array("Q")
    for digit in range(size):
        text = canonical.text([column[digit] for column in columns])
        digests.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
        if digit % _STEP == 0:
            yield
    sizes = [0] * _BUCKETS
    for digest in digests:
        sizes[digest % _BUCKETS] += 1
    yield
    ends = [0, *accumulate(sizes)]
    digits = array("I", bytes(4 * size))
    for digit, digest in enumerate(digests):
        digits[ends[digest % _BUCKETS]] = digit
        ends[digest % _BUCKETS] += 1
        if digit % (50 * _STEP) == 0:
            yield
    marks = bytearray(size)
    start = 0
    for end in ends[:_BUCKETS]:
        seen: set[int] = set()
        for digit in digits[start:end]:
            if digests[digit] not in seen:
                seen.add(digests[digit])
                marks[digit] = 1
        start = end
        yield
    return marks
