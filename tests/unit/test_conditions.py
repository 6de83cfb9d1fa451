"""A page of jobs for which a condition holds: bounded work for each page, and no job is missed or repeated."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core.language import version
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import JobRow, PointRecord
from ems_worker.service.base import conditions

PARAMETERS = {"food": "layer.food"}


def rows(number: int) -> list[JobRow]:
    """The only job of each of so many points."""
    return [
        JobRow(
            PointRecord(point=point, params={"food": point}),
            Run(point=point, replicate=0, attempt=1, seed=1, state=RunState.COMPLETED),
        )
        for point in range(number)
    ]


class Table:
    """Jobs, and how many of them were read."""

    def __init__(self, jobs: Sequence[JobRow]) -> None:
        self.jobs = jobs
        self.read_jobs = 0

    async def read(self, after: conditions.Position, limit: int) -> Sequence[JobRow]:
        first = after[0] + 1
        page = self.jobs[first : first + limit]
        self.read_jobs += len(page)
        return page


@given(st.integers(0, 5000), st.integers(1, 100), st.integers(1, 700))
async def test_every_matching_job_is_found_once(number: int, limit: int, step: int) -> None:
    """However large the pages are and however few jobs match."""
    table, seen, pages = Table(rows(number)), list[int](), 0
    condition = conditions.read(f"food % {step} == 0", PARAMETERS, version.VERSION)
    after: conditions.Position | None = (-1, -1, -1)
    while after is not None:
        before = table.read_jobs
        found, after = await conditions.page(table.read, after, limit, condition)
        assert len(found) <= limit
        assert table.read_jobs - before <= 2000
        seen += [row.run.point for row in found]
        pages += 1
    assert seen == list(range(0, number, step))
    assert pages <= len(seen) // limit + number // 2000 + 2


async def test_without_a_condition_only_the_page_is_read() -> None:
    """As many jobs as are asked for."""
    table = Table(rows(500))
    found, after = await conditions.page(table.read, (9, 0, 1), 20, None)
    assert [row.run.point for row in found] == list(range(10, 30))
    assert (after, table.read_jobs) == ((29, 0, 1), 20)


def test_a_condition_that_cant_be_read_is_refused() -> None:
    """With the name that is probably meant; no text is no condition."""
    with pytest.raises(errors.RequestRefused, match=r"where: .*did you mean food\?"):
        conditions.read("foood > 1", PARAMETERS, version.VERSION)
    assert conditions.read(None, PARAMETERS, version.VERSION) is None


async def test_other_work_goes_on_between_the_jobs_of_a_costly_condition() -> None:
    """A job may take milliseconds; and a long condition is tried on fewer jobs for one reply."""
    table, turns = Table(rows(1000)), 0
    long = conditions.read(" or ".join(["food < 0"] * 80), PARAMETERS, version.VERSION)

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    found, after = await conditions.page(table.read, (-1, 0, 1), 100, long)
    counting.cancel()
    assert (found, after, table.read_jobs) == ([], (299, 0, 1), 300)
    assert turns >= table.read_jobs
