"""Finds the first of equal rows in long columns, in 13 bytes of memory per row; the result takes one."""

import hashlib
from array import array
from collections.abc import Generator, Sequence
from itertools import accumulate
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import ranges

_BUCKETS: Final = 256
# Rows per step, which takes some 10 ms; moving digests to their buckets is 50 times as fast.
_STEP: Final = 2_000
_SORT_STEP: Final = 50 * _STEP


def marks(columns: Sequence[Sequence[canonical.JSON]], size: int) -> bytearray:
    """The result of `find`, without steps."""
    finding = find(columns, size)
    while True:
        try:
            next(finding)
        except StopIteration as end:
            return bytearray(end.value)


def find(columns: Sequence[Sequence[canonical.JSON]], size: int) -> Generator[None, None, bytearray]:
    """Marks each of `size` rows with 1 if no earlier row is equal, else 0. No marks if a range makes all rows differ.

    Yields after each step. Rows are equal if eight bytes of their digests are; they are compared bucket by bucket.
    """
    if any(isinstance(column, ranges.Spaced) and not column.dense for column in columns):
        return bytearray()
    digests = array("Q")
    for row in range(size):
        text = canonical.text([column[row] for column in columns])
        digests.append(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big"))
        if row % _STEP == 0:
            yield
    sizes = [0] * _BUCKETS
    for digest in digests:
        sizes[digest % _BUCKETS] += 1
    yield
    ends = [0, *accumulate(sizes)]
    rows = array("I", bytes(4 * size))
    for row, digest in enumerate(digests):
        rows[ends[digest % _BUCKETS]] = row
        ends[digest % _BUCKETS] += 1
        if row % _SORT_STEP == 0:
            yield
    marks = bytearray(size)
    start = 0
    for end in ends[:_BUCKETS]:
        seen: set[int] = set()
        for row in rows[start:end]:
            if digests[row] not in seen:
                seen.add(digests[row])
                marks[row] = 1
        start = end
        yield
    return marks
