"""How a round ends, and why."""

from collections.abc import Mapping
from fractions import Fraction

import pytest

from ems_worker.core.language.options import MaxFailed
from ems_worker.core.lifecycle import conclusion
from ems_worker.core.lifecycle.conclusion import Situation
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentEvent, ExperimentState, Standing
from ems_worker.core.lifecycle.tally import Bucket, Tally

NONE, ALL = MaxFailed(count=0), MaxFailed(percent=Fraction(100))
B = Bucket
SUCCEED, MISS, ABANDON = ExperimentEvent.SUCCEED, ExperimentEvent.MISS, ExperimentEvent.ABANDON


def situation(
    max_failed: MaxFailed = NONE, *, cancel: CancelMode | None = None, kept_open: bool = False, judging: bool = False
) -> Situation:
    standing = Standing(ExperimentState.RUNNING, cancel=cancel, kept_open=kept_open)
    return Situation(standing, max_failed.allowed, judging=judging)


def tally(
    counts: Mapping[Bucket, int],
    *,
    excluded: Mapping[Bucket, int] | None = None,
    called_off: Mapping[Bucket, int] | None = None,
    dropped: int = 0,
) -> Tally:
    return Tally(sum(counts.values()), counts, excluded=excluded or {}, called_off=called_off or {}, dropped=dropped)


@pytest.mark.parametrize(
    ("counts", "max_failed", "event"),
    [
        ({B.COMPLETED: 3}, NONE, SUCCEED),
        ({B.COMPLETED: 2, B.FAILED: 1}, NONE, MISS),
        ({B.COMPLETED: 2, B.LOST: 1}, NONE, MISS),
        ({B.COMPLETED: 2, B.FAILED: 1}, MaxFailed(count=1), SUCCEED),
        ({B.COMPLETED: 1, B.FAILED: 1, B.LOST: 1}, MaxFailed(count=1), MISS),
        ({B.COMPLETED: 9, B.FAILED: 1}, MaxFailed(percent=Fraction(10)), SUCCEED),
        ({B.COMPLETED: 8, B.FAILED: 2}, MaxFailed(percent=Fraction(10)), MISS),
        # Infeasible jobs are no failures, but somebody has to complete.
        ({B.COMPLETED: 1, B.INFEASIBLE: 99}, NONE, SUCCEED),
        ({B.INFEASIBLE: 100}, NONE, MISS),
        ({B.INFEASIBLE: 100}, MaxFailed(percent=Fraction(99)), MISS),
        ({B.INFEASIBLE: 100}, ALL, SUCCEED),
        ({B.FAILED: 3}, ALL, SUCCEED),
        ({B.FAILED: 3}, MaxFailed(count=3), SUCCEED),
        ({B.FAILED: 2, B.INFEASIBLE: 1}, MaxFailed(count=2), MISS),
    ],
)
def test_a_round_fails_if_too_many_jobs_failed_or_none_completed(
    counts: Mapping[Bucket, int], max_failed: MaxFailed, event: ExperimentEvent
) -> None:
    """That none completed matters only if the plan doesn't allow all jobs to fail."""
    assert conclusion.event(tally(counts), situation(max_failed)) is event


@pytest.mark.parametrize("open_bucket", sorted({*B} - {B.COMPLETED, B.FAILED, B.INFEASIBLE, B.CANCELLED, B.LOST}))
@pytest.mark.parametrize("cancel", [None, *CancelMode])
def test_a_round_goes_on_while_a_job_is_open(open_bucket: Bucket, cancel: CancelMode | None) -> None:
    """A cancelled experiment too ends with its last job."""
    assert conclusion.event(tally({B.COMPLETED: 5, open_bucket: 1}), situation(cancel=cancel)) is None


def test_a_round_goes_on_while_it_is_kept_open_or_a_change_is_carried_out() -> None:
    """Jobs that have all ended may be followed by others."""
    ended = tally({B.COMPLETED: 5})
    assert conclusion.event(ended, situation(kept_open=True)) is None
    assert conclusion.event(ended, situation(judging=True)) is None
    assert conclusion.event(ended, situation(judging=True, cancel=CancelMode.STOP)) is None


@pytest.mark.parametrize("counts", [{B.CANCELLED: 5}, {B.COMPLETED: 5}, {B.FAILED: 5}, {B.LOST: 1, B.CANCELLED: 4}])
def test_an_experiment_that_was_cancelled_as_a_whole_is_cancelled_however_its_jobs_ended(
    counts: Mapping[Bucket, int],
) -> None:
    """It needs no reason besides that of the person."""
    cancelled = situation(cancel=CancelMode.STOP)
    assert conclusion.event(tally(counts), cancelled) is ABANDON
    assert conclusion.reason(tally(counts), cancelled) is None


def test_jobs_that_were_called_off_count_on_neither_side() -> None:
    """Failures are judged against the others, and a percentage is one of those."""
    called_off = {B.CANCELLED: 80, B.LOST: 10}
    some = tally({B.COMPLETED: 9, B.FAILED: 1, **called_off}, called_off=called_off)
    assert conclusion.event(some, situation(MaxFailed(percent=Fraction(10)))) is SUCCEED
    assert conclusion.event(some, situation(MaxFailed(percent=Fraction(9)))) is MISS
    rest = tally({B.COMPLETED: 1, B.CANCELLED: 5}, called_off={B.CANCELLED: 5})
    assert conclusion.event(rest, situation()) is SUCCEED


def test_excluded_jobs_count_on_neither_side() -> None:
    """An excluded failure is none, and an excluded success too."""
    excused = tally({B.COMPLETED: 1, B.FAILED: 1}, excluded={B.FAILED: 1})
    assert conclusion.event(excused, situation()) is SUCCEED
    worthless = tally({B.COMPLETED: 2, B.INFEASIBLE: 1}, excluded={B.COMPLETED: 2})
    assert conclusion.event(worthless, situation()) is MISS
    assert conclusion.reason(worthless, situation()) == (
        "no job that counts completed: 1 of 3 was infeasible, 2 of 3 completed and are excluded"
    )


def test_an_experiment_with_dropped_jobs_has_failed() -> None:
    """This holds even if the job that had failed turns out to have completed, until the dropped jobs are retried."""
    failing = tally({B.LOST: 1, B.CANCELLED: 1}, dropped=1)
    assert conclusion.reason(failing, situation()) == "too many jobs failed"
    late = tally({B.COMPLETED: 1, B.CANCELLED: 1}, dropped=1)
    assert conclusion.event(late, situation()) is MISS
    assert conclusion.reason(late, situation()) == "1 job was cancelled because too many failed"
    many = tally({B.COMPLETED: 1, B.CANCELLED: 2000}, dropped=2000)
    assert conclusion.reason(many, situation()) == "2,000 jobs were cancelled because too many failed"


@pytest.mark.parametrize(
    ("counts", "error", "reason"),
    [
        (
            {B.INFEASIBLE: 100},
            ("infeasible", "energy below 0", 97),
            "no job completed: 100 of 100 were infeasible, most often: energy below 0",
        ),
        (
            {B.INFEASIBLE: 1, B.FAILED: 1, B.LOST: 1, B.CANCELLED: 1},
            ("lost", None, 1),
            "no job completed: 1 of 4 was infeasible, 1 of 4 failed, 1 of 4 was lost, 1 of 4 was cancelled, "
            "most often: lost",
        ),
        ({B.CANCELLED: 2000}, None, "no job completed: 2,000 of 2,000 were cancelled"),
        (
            {B.LOST: 2, B.INFEASIBLE: 2},
            ("lost", "line\nbreak", 2),
            "no job completed: 2 of 4 were infeasible, 2 of 4 were lost, most often: line break",
        ),
    ],
)
def test_the_reason_says_in_words_how_jobs_ended_if_none_completed(
    counts: Mapping[Bucket, int], error: tuple[str, str | None, int] | None, reason: str
) -> None:
    """It ends with the commonest error, on one line."""
    allowed = MaxFailed(count=sum(counts.values()) - 1)
    assert conclusion.reason(tally(counts), situation(allowed), error) == reason


def test_a_long_error_is_cut() -> None:
    """The reason stays short."""
    given = conclusion.reason(tally({B.INFEASIBLE: 1}), situation(), ("infeasible", "x" * 5000, 1))
    assert given is not None
    assert len(given) < conclusion.MAX_MESSAGE + 100
