"""What messages since a backup tell about a job of the restored manifest."""

from typing import Any

import pytest
from msgspec.structs import replace

from ems_worker.core.lifecycle import job, restored
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.lifecycle.run import ErrorKind, Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import PublishedResult

NOW_MS = 1_760_000_000_000
FIRST = job.first(4, 1, 7)


def of(**changes: Any) -> Job:
    return Job((replace(FIRST, **changes),))


def attempts(known: Job | None) -> list[tuple[int, str, bool]]:
    assert known is not None
    return [(run.attempt, run.state, run.current) for run in known.runs]


@pytest.mark.parametrize("state", [RunState.PENDING, RunState.SUBMITTING, RunState.SUBMITTED, RunState.RUNNING])
def test_an_open_attempt_is_lost_when_a_later_one_began(state: RunState) -> None:
    """The later one is pending, with what its job has."""
    after = restored.with_attempt(of(state=state, suspended=True, job_revision=3, excluded="odd"), 3, NOW_MS)
    assert attempts(after) == [(1, "lost", False), (2, "lost", False), (3, "pending", True)]
    assert after is not None
    assert {(run.error_kind, run.error_message, run.finished_ms, run.suspended) for run in after.runs[:2]} == {
        (ErrorKind.LOST, restored.LOST, NOW_MS, False)
    }
    assert after.current == Run(4, 1, 3, 7, due_ms=NOW_MS, job_revision=3, excluded="odd")


def test_an_attempt_that_ended_stays_as_it_is() -> None:
    """It no longer represents its job."""
    ended = of(state=RunState.FAILED, error_kind=ErrorKind.SIMULATION, finished_ms=1, ended_seq=2, job_revision=1)
    after = restored.with_attempt(ended, 2, NOW_MS)
    assert attempts(after) == [(1, "failed", False), (2, "pending", True)]
    assert after is not None
    assert after.runs[0] == replace(ended.current, current=False, ended_seq=None)


def test_the_last_attempt_may_be_known_to_have_ended() -> None:
    """How is not known."""
    assert attempts(restored.with_attempt(of(), 2, NOW_MS, ended=True)) == [(1, "lost", False), (2, "lost", True)]


@pytest.mark.parametrize(
    ("known", "number"),
    [(of(), 1), (of(), 0), (of(state=RunState.COMPLETED, finished_ms=1), 2), (of(), restored.MAX_NEW_ATTEMPTS + 2)],
)
def test_no_attempt_is_added_that_is_there_or_cannot_have_been(known: Job, number: int) -> None:
    """A completed job gets no other attempt, and the numbers in events come from outside."""
    assert restored.with_attempt(known, number, NOW_MS) is None


def test_as_many_attempts_are_added_as_are_allowed_at_once() -> None:
    """And no more."""
    after = restored.with_attempt(of(), restored.MAX_NEW_ATTEMPTS + 1, NOW_MS)
    assert len(attempts(after)) == restored.MAX_NEW_ATTEMPTS + 1


COMPLETED = of(state=RunState.COMPLETED, finished_ms=1, ended_seq=5, job_revision=2)


def result(revision: int, state: str = "completed", excluded: str | None = None) -> PublishedResult:
    return PublishedResult("reef-p000004-r001-a1", revision, state, excluded)


@pytest.mark.parametrize(("published", "after"), [(1, 2), (2, 2), (3, 3)])
def test_a_job_has_at_least_as_many_ends_as_were_published(published: int, after: int) -> None:
    """It keeps those that it has."""
    assert restored.counted(COMPLETED, result(published)).current.job_revision == after


@pytest.mark.parametrize(
    ("attempt", "published", "anew"),
    [
        (1, result(2), False),
        (1, result(3), False),
        (2, result(2), True),
        (1, result(2, "lost"), True),
        (1, result(2, excluded="odd"), True),
        (1, result(1, "lost"), False),
    ],
)
def test_an_end_that_differs_from_the_last_published_one_is_another(
    attempt: int, published: PublishedResult, anew: bool
) -> None:
    """An older result says nothing."""
    assert restored.ends_anew(COMPLETED, attempt, published) is anew


def test_a_job_that_has_not_ended_has_no_other_end() -> None:
    """Its end will be numbered."""
    assert not restored.ends_anew(of(job_revision=1), 1, result(1, "lost"))
