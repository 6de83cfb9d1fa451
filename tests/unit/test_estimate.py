"""The estimate of how long a plan takes: which completed runs count, and how."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle.estimate import CompletedRun, estimate


def test_runs_with_the_same_base_configuration_count_if_there_are_any() -> None:
    """The estimate is their mean time, once for each time that the slots are filled."""
    runs = [CompletedRun(False, "v2", 100.0), CompletedRun(True, "v2", 2.0), CompletedRun(True, "v2", 4.0)]
    assert estimate(runs, jobs=9, slots=4) == {"seconds": 9.0, "mean_run_seconds": 3.0, "runs": 2, "slots": 4}


def test_otherwise_all_runs_of_the_newest_model_version_count() -> None:
    """Runs of other versions don't count, even with the same base configuration."""
    runs = [CompletedRun(False, "v2", 10.0), CompletedRun(True, "v1", 1.0), CompletedRun(False, "v2", 20.0)]
    assert estimate(runs, jobs=2, slots=4) == {"seconds": 15.0, "mean_run_seconds": 15.0, "runs": 2, "slots": 4}


def test_without_a_version_only_the_same_base_counts() -> None:
    """Without a version, runs with another base configuration may have been of another model."""
    assert estimate([CompletedRun(False, None, 10.0)], jobs=2, slots=4) is None
    known = estimate([CompletedRun(False, None, 10.0), CompletedRun(True, None, 2.0)], jobs=2, slots=4)
    assert known is not None
    assert (known["runs"], known["seconds"]) == (1, 2.0)


@pytest.mark.parametrize(("runs", "slots"), [([], 4), ([CompletedRun(True, "v1", 1.0)], 0)])
def test_there_is_no_estimate_without_runs_or_slots(runs: list[CompletedRun], slots: int) -> None:
    """No run has completed yet, or the number of slots isn't known yet."""
    assert estimate(runs, jobs=10, slots=slots) is None


@given(
    st.lists(st.builds(CompletedRun, st.booleans(), st.just("v1"), st.floats(-10, 1e6)), min_size=1),
    st.integers(1, 10**6),
)
def test_more_slots_never_take_longer(runs: list[CompletedRun], jobs: int) -> None:
    """The estimate is never negative, even if a clock was set back during a run."""
    times = [known["seconds"] for slots in (1, 2, 64, 10**6) if (known := estimate(runs, jobs, slots)) is not None]
    assert times == sorted(times, reverse=True)
    assert times[-1] >= 0
