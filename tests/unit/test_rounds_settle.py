"""When a round settles: its quorum, the grace of stragglers, and pauses."""

import pytest

from ems_worker.core.lifecycle import settling
from ems_worker.core.lifecycle.settling import Cause, RoundJobs, Terms
from ems_worker.core.lifecycle.tally import Bucket, Tally

MOST = Terms(quorum=90, grace_ms=1000)


def jobs(ended: int, total: int = 100, earlier_jobs: int = 0) -> RoundJobs:
    tally = Tally(total, {Bucket.COMPLETED: ended // 2, Bucket.CANCELLED: ended - ended // 2})
    return settling.jobs(tally, earlier_jobs)


def settles(ended: int, settling_ms: int | None, terms: Terms = MOST, *, paused: bool = False) -> Cause | None:
    return settling.settles(jobs(ended), terms, settling_ms, paused=paused, judging=False)


def waited(ended: int, settling_ms: int | None, elapsed_ms: int = 400, *, paused: bool = False) -> int | None:
    return settling.waited(jobs(ended), MOST, settling_ms, elapsed_ms=elapsed_ms, paused=paused)


@pytest.mark.parametrize(
    ("ended", "quorum", "reached"),
    [(89, 90, False), (90, 90, True), (99, None, False), (100, None, True), (100, 500, True), (0, 0, True)],
)
def test_a_quorum_is_a_number_of_ended_jobs(ended: int, quorum: int | None, reached: bool) -> None:
    """By default all of them; it is never more than there are. It doesn't matter how they ended."""
    assert settling.reached(jobs(ended), Terms(quorum)) is reached


def test_jobs_of_earlier_rounds_count_for_no_quorum() -> None:
    """An extension by ten jobs has a round of ten."""
    assert jobs(100, 110, earlier_jobs=100) == RoundJobs(0, 10)
    assert jobs(109, 110, earlier_jobs=100) == RoundJobs(9, 10)


def test_the_grace_begins_with_the_quorum_and_stands_still_in_a_pause() -> None:
    """A clock that was set back doesn't lengthen it."""
    assert waited(89, None) is None
    assert waited(90, None) == 0
    assert waited(90, 0) == 400
    assert waited(91, 400, paused=True) == 400
    assert waited(90, 400, elapsed_ms=-9000) == 400


def test_the_grace_begins_anew_after_a_retry_led_back_below_the_quorum() -> None:
    """What was waited before counts for nothing."""
    assert waited(80, 900) is None
    assert waited(90, None) == 0


def test_a_round_settles_when_the_grace_is_over() -> None:
    """Not before, not in a pause, and not below the quorum."""
    assert settles(90, None) is None
    assert settles(90, 999) is None
    assert settles(90, 1000) is Cause.QUORUM
    assert settles(90, 1000, paused=True) is None
    assert settles(89, 1000) is None
    assert settles(90, 0, Terms(quorum=90)) is Cause.QUORUM


def test_a_round_settles_at_the_latest_with_its_last_job() -> None:
    """It needs no quorum for that, no grace, and a pause doesn't matter."""
    assert settles(100, None) is Cause.ENDED
    assert settles(100, 0, paused=True) is Cause.ENDED
    assert settles(100, None, Terms()) is Cause.ENDED
    assert settles(99, 5000, Terms()) is None


def test_a_round_does_not_settle_while_a_change_judges_jobs() -> None:
    """It may give the round more of them."""
    for ended in (90, 100):
        assert settling.settles(jobs(ended), MOST, 5000, paused=False, judging=True) is None
