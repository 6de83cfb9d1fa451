"""Finding the first of equal rows."""

import tracemalloc
from collections.abc import Sequence
from itertools import repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import canonical
from ems_worker.core.language import first_occurrences, ranges, samples

JSON = canonical.JSON
VALUES = st.sampled_from([0, 1, 1.0, True, "1", None, [1], [1.0], {"a": 1}])


def marked(columns: Sequence[Sequence[JSON]], size: int) -> tuple[bytearray, int]:
    """The marks, and the number of steps to make them."""
    steps = 0
    finding = first_occurrences.find(columns, size)
    while True:
        try:
            next(finding)
        except StopIteration as end:
            return end.value, steps
        steps += 1


@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=60))
def test_the_first_of_equal_rows_is_marked(rows: list[tuple[JSON, JSON]]) -> None:
    """Values are compared as in plans: 1 and 1.0 differ."""
    texts = [canonical.text(row) for row in rows]
    expected = [text not in texts[:at] for at, text in enumerate(texts)]
    assert [bool(mark) for mark in marked([*zip(*rows, strict=True)], len(rows))[0]] == expected


def test_rows_with_a_range_are_not_compared() -> None:
    """All values of a range differ, unless it is finer than floats."""
    assert marked([["x"] * 9, ranges.by_step(1, 10**9, 1)], 10**9) == (bytearray(), 0)
    fine = ranges.by_count(1.0, 1.0000000000000002, 4)
    assert bytes(marked([fine], 4)[0]) == bytes([1, 0, 1, 0])


@pytest.mark.usefixtures("untraced")
def test_finding_takes_little_memory_and_short_steps() -> None:
    """It takes less than 30 bytes per row, and a step has at most 2,000 rows."""
    size = 10_000
    column = samples.Column(samples.columns("random", ["a"], size, 7)[0], samples.Int(0, 1_000_000))
    tracemalloc.start()
    try:
        marks, steps = marked([column, [*repeat("x", size)]], size)
        assert tracemalloc.get_traced_memory()[1] < 30 * size
    finally:
        tracemalloc.stop()
    assert steps > 256 + size / 2000
    assert sum(marks) == len({*column[:]})
