"""The estimate of a plan's time: which earlier runs count, and what follows from them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle.estimate import Past, estimate


def test_runs_of_the_same_base_tell_most() -> None:
    """Where there are any; the mean of these, once for each round of the slots."""
    past = [Past(False, "v2", 100.0), Past(True, "v2", 2.0), Past(True, "v2", 4.0)]
    assert estimate(past, jobs=9, slots=4) == {"seconds": 9.0, "mean_run_seconds": 3.0, "runs": 2, "slots": 4}


def test_else_all_of_the_model_count() -> None:
    """Of the newest run's version; older versions took as long as they took."""
    past = [Past(False, "v2", 10.0), Past(True, "v1", 1.0), Past(False, "v2", 20.0)]
    assert estimate(past, jobs=2, slots=4) == {"seconds": 15.0, "mean_run_seconds": 15.0, "runs": 2, "slots": 4}


def test_without_a_version_only_the_same_base_counts() -> None:
    """Nothing says that other runs were of this model."""
    assert estimate([Past(False, None, 10.0)], jobs=2, slots=4) is None
    known = estimate([Past(False, None, 10.0), Past(True, None, 2.0)], jobs=2, slots=4)
    assert known is not None
    assert (known["runs"], known["seconds"]) == (1, 2.0)


@pytest.mark.parametrize(("past", "slots"), [([], 4), ([Past(True, "v1", 1.0)], 0)])
def test_nothing_known_is_no_estimate(past: list[Past], slots: int) -> None:
    """No run has ended, or the slots aren't known yet."""
    assert estimate(past, jobs=10, slots=slots) is None


@given(st.lists(st.builds(Past, st.booleans(), st.just("v1"), st.floats(-10, 1e6)), min_size=1), st.integers(1, 10**6))
def test_more_slots_never_take_longer(past: list[Past], jobs: int) -> None:
    """And no clock that ran backwards makes it negative."""
    times = [made["seconds"] for slots in (1, 2, 64, 10**6) if (made := estimate(past, jobs, slots)) is not None]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= 0
