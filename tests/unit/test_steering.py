"""What each verb does to an experiment, however it stands."""

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations, product

import pytest

from ems_worker.core.lifecycle import experiment, steering
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner, Standing
from ems_worker.core.lifecycle.steering import Action, Phase, Ruling, Verb

OPEN = (ExperimentState.ACCEPTED, ExperimentState.RUNNING, ExperimentState.PAUSED)
OWNERS = [frozenset(chosen) for size in range(6) for chosen in combinations(PauseOwner, size)]
SELECTING = (Verb.CANCEL, Verb.RETRY, Verb.EXCLUDE, Verb.INCLUDE)


def standings() -> Iterable[Standing]:
    """Every way in which an experiment can stand."""
    for state, kept_open in product(ExperimentState, (False, True)):
        if state is ExperimentState.PAUSED:
            for owners, now in product(OWNERS[1:], (False, True)):
                yield Standing(state, 3, owners, pause_now=now, kept_open=kept_open)
        else:
            for cancel in (None, *CancelMode):
                yield Standing(state, 3, cancel=cancel, kept_open=kept_open)


REQUESTS = list(product(Verb, (False, True), (False, True), (False, True), (False, True)))


def ruled() -> Iterable[tuple[Standing, Verb, dict[str, bool], Ruling]]:
    """Every request of every experiment, with the ruling."""
    for standing, (verb, where, expanded, now, drain) in product(standings(), REQUESTS):
        options = {"where": where, "expanded": expanded, "now": now, "drain": drain}
        yield standing, verb, options, steering.rule(verb, standing, **options)


def test_every_verb_is_decided_in_every_phase() -> None:
    """The table has exactly one row for each pair, and uses each of its actions."""
    assert set(steering.RULES) == set(product(Verb, Phase))
    assert set(steering.RULES.values()) == set(Action)


def test_what_is_refused_or_changes_nothing_leaves_everything_as_it_is() -> None:
    """Nothing is judged then either, and a refusal says why."""
    for standing, _, _, ruling in ruled():
        if not ruling.changed:
            assert (ruling.after, ruling.judges, ruling.follows) == (standing, False, False)
        if ruling.refused is not None:
            assert not ruling.changed
            assert ruling.refused


def test_where_is_for_the_verbs_that_select_jobs() -> None:
    """With every other verb it is refused, whatever the state."""
    for _, verb, options, ruling in ruled():
        refused_for_where = ruling.refused is not None and "where" in ruling.refused
        assert refused_for_where == (options["where"] and verb not in SELECTING)
    assert set(SELECTING) == steering.SELECTING


def test_an_experiment_that_is_being_cancelled_refuses_what_would_give_it_jobs() -> None:
    """It says to wait for the end. Nothing else is refused, apart from a `where` that is out of place."""
    for standing, verb, options, ruling in ruled():
        if options["where"] and verb not in SELECTING:
            continue
        being_cancelled = standing.state in OPEN and standing.cancel is not None
        assert (ruling.refused is not None) == (being_cancelled and verb in (Verb.RETRY, Verb.EXTEND))
        assert ruling.refused is None or f"{verb} it once that has ended" in ruling.refused


def test_a_pause_adds_a_person_to_its_owners() -> None:
    """Open runs are paused only with `now`, and a later pause without it takes that back from nobody.

    A cancelled or ended experiment isn't paused.
    """
    for standing, verb, options, ruling in ruled():
        if verb is not Verb.PAUSE or options["where"]:
            continue
        if standing.state not in OPEN or standing.cancel is not None:
            assert not ruling.changed
            continue
        assert ruling.after.state is ExperimentState.PAUSED
        assert ruling.after.pauses == {*standing.pauses, PauseOwner.PERSON}
        assert ruling.after.pause_now is (standing.pause_now or options["now"])
        again = PauseOwner.PERSON in standing.pauses and ruling.after.pause_now is standing.pause_now
        assert ruling.changed is not again
        assert not ruling.judges


def test_a_resume_removes_every_owner_but_the_budget() -> None:
    """The experiment runs if none is left; its open runs go on in any case."""
    for standing, verb, options, ruling in ruled():
        if verb is not Verb.RESUME or options["where"]:
            continue
        if standing.state is not ExperimentState.PAUSED:
            assert not ruling.changed
            continue
        left = {PauseOwner.BUDGET} if PauseOwner.BUDGET in standing.pauses else set()
        assert ruling.after.pauses == left
        assert ruling.after.state is (ExperimentState.PAUSED if left else ExperimentState.RUNNING)
        assert not ruling.after.pause_now
        assert ruling.changed is (standing.pauses != left or standing.pause_now)


def test_a_whole_experiment_is_cancelled_in_every_open_state_and_that_ends_every_pause() -> None:
    """It isn't kept open any more. Draining can be turned into stopping, and not the other way round."""
    for standing, verb, options, ruling in ruled():
        if verb is not Verb.CANCEL or options["where"]:
            continue
        mode = CancelMode.DRAIN if options["drain"] else CancelMode.STOP
        hastened = (standing.cancel, mode) == (CancelMode.DRAIN, CancelMode.STOP)
        if standing.state not in OPEN or (standing.cancel is not None and not hastened):
            assert not ruling.changed
            continue
        after = ruling.after
        assert (after.cancel, after.pauses, after.pause_now, after.kept_open) == (mode, frozenset(), False, False)
        running = standing.state is not ExperimentState.ACCEPTED
        assert after.state is (ExperimentState.RUNNING if running else ExperimentState.ACCEPTED)
        assert after.round == standing.round
        assert ruling.changed
        assert ruling.judges
        assert ruling.follows is not options["expanded"]


def test_some_jobs_of_an_open_experiment_are_cancelled_without_a_change_of_its_own_standing() -> None:
    """If all its runs are being stopped anyway, or may end as they are to, nothing changes."""
    for standing, verb, options, ruling in ruled():
        if verb is not Verb.CANCEL or not options["where"]:
            continue
        assert ruling.after == standing
        going = standing.state in OPEN and standing.cancel is None
        hastened = standing.state in OPEN and standing.cancel is CancelMode.DRAIN and not options["drain"]
        assert ruling.judges is ruling.changed is (going or hastened)


@pytest.mark.parametrize("verb", [Verb.RETRY, Verb.EXTEND])
def test_a_retry_and_an_extension_reopen_an_ended_experiment(verb: Verb) -> None:
    """The next round is kept open as the last one was, and isn't cancelled. An open round goes on as it stands."""
    for standing, other, options, ruling in ruled():
        if other is not verb or ruling.refused is not None:
            continue
        assert ruling.changed
        assert ruling.judges
        ended = standing.state not in OPEN
        assert ruling.reopens(standing) is ended
        if ended:
            assert ruling.after == Standing(ExperimentState.RUNNING, 4, kept_open=standing.kept_open)
        else:
            assert ruling.after == standing
        assert ruling.follows is (verb is Verb.EXTEND and not options["expanded"])


def test_limits_are_recorded_in_every_state() -> None:
    """Those of an ended experiment apply to its next round."""
    for standing, verb, options, ruling in ruled():
        if verb is Verb.SET and not options["where"]:
            assert (ruling.after, ruling.changed, ruling.judges) == (standing, True, False)


def test_a_close_lets_an_open_experiment_end() -> None:
    """One that isn't kept open, or has ended, stays as it is."""
    for standing, verb, options, ruling in ruled():
        if verb is Verb.CLOSE and not options["where"]:
            assert ruling.changed is (standing.kept_open and standing.state in OPEN)
            assert not ruling.changed or ruling.after == replace(standing, kept_open=False)
            assert not ruling.judges


@pytest.mark.parametrize("verb", [Verb.EXCLUDE, Verb.INCLUDE])
def test_exclusion_judges_jobs_in_every_state_and_changes_nothing_else(verb: Verb) -> None:
    """Jobs that are yet to be expanded are excluded once they are."""
    for standing, other, options, ruling in ruled():
        if other is verb:
            assert (ruling.after, ruling.changed, ruling.judges) == (standing, True, True)
            assert ruling.follows is not options["expanded"]


def test_a_verb_that_is_carried_out_twice_changes_nothing_the_second_time() -> None:
    """That is so for every verb that only changes how the experiment stands."""
    for _, verb, options, ruling in ruled():
        if ruling.changed and verb in (Verb.PAUSE, Verb.RESUME, Verb.CLOSE):
            assert not steering.rule(verb, ruling.after, **options).changed
        if ruling.changed and verb is Verb.CANCEL and not options["where"]:
            assert not steering.rule(verb, ruling.after, **options).changed


def test_an_experiment_is_paused_exactly_while_somebody_pauses_it() -> None:
    """It holds after every verb; and a cancelled one isn't paused, an ended one has no owners."""
    for _, _, _, ruling in ruled():
        after = ruling.after
        assert (after.state is ExperimentState.PAUSED) is bool(after.pauses)
        assert not after.pauses or after.cancel is None
        assert not after.pause_now or after.pauses


def test_the_worker_itself_may_own_a_pause() -> None:
    """Several owners may pause an experiment, in any order."""
    running = Standing(ExperimentState.RUNNING)
    held = steering.paused(running, PauseOwner.RESTORED)
    both = steering.paused(held, PauseOwner.BUDGET)
    assert both.state is ExperimentState.PAUSED
    assert both.pauses == {PauseOwner.RESTORED, PauseOwner.BUDGET}
    assert steering.resumed(both).pauses == {PauseOwner.BUDGET}
    assert steering.resumed(held) == running


def test_the_phase_of_an_ended_experiment_is_that() -> None:
    """An experiment that ended after it was cancelled is not being cancelled any more."""
    for standing in standings():
        ended = standing.state in experiment.ENDED
        assert (steering.phase(standing) is Phase.ENDED) is ended


def test_the_next_round_of_an_open_experiment_leaves_it_as_it_is() -> None:
    """One that had ended runs again, and only its plan's keep_open is left of how it stood."""
    paused = Standing(ExperimentState.PAUSED, 2, frozenset({PauseOwner.PERSON}), kept_open=True)
    assert steering.next_round(paused) == replace(paused, round=3)
    cancelled = Standing(ExperimentState.CANCELLED, 2, cancel=CancelMode.STOP, kept_open=True)
    assert steering.next_round(cancelled) == Standing(ExperimentState.RUNNING, 3, kept_open=True)
