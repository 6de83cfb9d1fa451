"""An experiment: its states."""

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentEvent, ExperimentState


def test_every_pair_of_state_and_event_is_decided() -> None:
    """The table has an answer for every event in every state."""
    assert set(experiment.TRANSITIONS) == {(s, e) for s in ExperimentState for e in ExperimentEvent}


def test_an_ended_experiment_can_only_be_reopened() -> None:
    """It is running then."""
    effective = {event for (state, event), to in experiment.TRANSITIONS.items() if state in experiment.ENDED and to}
    assert effective == {ExperimentEvent.REOPEN}
    assert experiment.TRANSITIONS[ExperimentState.FAILED, ExperimentEvent.REOPEN] is ExperimentState.RUNNING


def test_an_experiment_can_end_in_every_open_state() -> None:
    """Its jobs may all be cancelled before it has begun, or while it is paused."""
    ends = {ExperimentEvent.SUCCEED: "completed", ExperimentEvent.MISS: "failed", ExperimentEvent.ABANDON: "cancelled"}
    for state in set(ExperimentState) - experiment.ENDED:
        for event, to in ends.items():
            assert experiment.TRANSITIONS[state, event] == to


def test_a_cancelled_experiment_is_not_paused_any_more() -> None:
    """It runs until its jobs are out."""
    assert experiment.TRANSITIONS[ExperimentState.PAUSED, ExperimentEvent.CANCEL] is ExperimentState.RUNNING
