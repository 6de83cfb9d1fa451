"""How the room in the run window is shared between experiments."""

from dataclasses import replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import schedule
from ems_worker.core.lifecycle.schedule import Demand, Line
from tests.support import steps


def test_one_experiment_gets_all_the_room() -> None:
    """It is limited only by the room."""
    assert schedule.allot([Demand(1, 0, 100)], 30) == {1: 30}


def test_experiments_share_equally_and_the_first_gets_the_remainder() -> None:
    """Room that an experiment can't use goes to the others (max-min fairness)."""
    assert schedule.allot([Demand(1, 0, 2), Demand(2, 0, 100), Demand(3, 0, 100)], 11) == {1: 2, 2: 5, 3: 4}


def test_experiments_with_fewer_open_runs_catch_up_first() -> None:
    """Shares make the open runs equal, not the new ones."""
    assert schedule.allot([Demand(1, 10, 100), Demand(2, 0, 100)], 12) == {1: 1, 2: 11}


def test_max_concurrent_limits_an_experiments_open_runs() -> None:
    """An experiment that already has more open runs gets no room."""
    assert schedule.allot([Demand(1, 3, 100, max_concurrent=4), Demand(2, 9, 5, max_concurrent=2)], 50) == {1: 1}


def test_a_higher_priority_goes_first() -> None:
    """A lower priority gets only what the higher one can't use; equal priorities share."""
    demands = [Demand(1, 0, 100), Demand(2, 0, 6, priority=5), Demand(3, 0, 100, priority=5), Demand(4, 0, 9)]
    assert schedule.allot(demands, 30) == {2: 6, 3: 24}
    demands[2] = Demand(3, 0, 100, max_concurrent=10, priority=5)
    assert schedule.allot(demands, 30) == {2: 6, 3: 10, 1: 7, 4: 7}
    assert schedule.allot([Demand(1, 0, 9, priority=-1), Demand(2, 50, 9)], 9) == {2: 9}


def test_nothing_is_allotted_without_room_or_demand() -> None:
    """The result is empty then."""
    assert schedule.allot([Demand(1, 0, 5)], 0) == {}
    assert schedule.allot([], 10) == {}


def test_many_experiments_share_in_few_steps() -> None:
    """It runs whenever a run makes room: a few steps for each of ten thousand experiments, not ten thousand."""
    demands = [Demand(key, key % 3, 50) for key in range(10_000)]
    assert steps.of(lambda: schedule.allot(demands, 256)) < 5 * len(demands)
    assert schedule.allot(demands, 256) == dict.fromkeys(range(0, 768, 3), 1)


DEMANDS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(0, 60), st.none() | st.integers(1, 50), st.integers(-1, 1)),
    min_size=1,
    max_size=8,
).map(lambda rows: [Demand(key, *row) for key, row in enumerate(rows)])


@given(DEMANDS, st.integers(0, 200))
def test_grants_fill_the_room_exceed_no_limit_and_are_fair(demands: list[Demand], room: int) -> None:
    """Three rules hold for any demands.

    All room is used as long as any experiment can use it. If an experiment could use more, no lower priority got room,
    and no experiment of its own priority that got room has two more open runs.
    """
    granted = schedule.allot(demands, room)
    total = sum(granted.values())
    wanted = sum(demand.max_open - demand.open for demand in demands)
    assert total == min(room, wanted)
    after = {demand.experiment: demand.open + granted.get(demand.experiment, 0) for demand in demands}
    assert all(after[demand.experiment] <= max(demand.max_open, demand.open) for demand in demands)
    for unsatisfied in (demand for demand in demands if after[demand.experiment] < demand.max_open):
        with_grant = [demand for demand in demands if demand.experiment in granted]
        assert all(demand.priority >= unsatisfied.priority for demand in with_grant)
        equals = [demand.experiment for demand in with_grant if demand.priority == unsatisfied.priority]
        assert all(after[key] <= after[unsatisfied.experiment] + 1 for key in equals)


@given(DEMANDS, st.lists(st.tuples(st.integers(0, 7), st.integers(0, 9)), max_size=9), st.integers(1, 30))
def test_a_line_grants_what_allot_grants(demands: list[Demand], changes: list[tuple[int, int]], room: int) -> None:
    """Also after demands were replaced and removed, in any order."""
    line, present = Line(), {demand.experiment: demand for demand in demands}
    for demand in reversed(demands):
        line.put(demand)
    for experiment, opened in changes:
        if experiment not in present:
            continue
        if opened:
            present[experiment] = replace(present[experiment], open=opened)
            line.put(present[experiment])
        else:
            del present[experiment]
            line.remove(experiment)
            line.remove(experiment)
    assert line.experiments == {key for key, demand in present.items() if demand.max_open > demand.open}
    assert line.shares(room) == schedule.allot([present[key] for key in sorted(present)], room)


@given(DEMANDS, st.integers(1, 200))
def test_shares_that_can_be_claimed_are_those_of_the_runs_that_are_due(demands: list[Demand], room: int) -> None:
    """It may be assumed that more are due, and corrected where a share shows to be too large."""
    line = Line()
    for demand in demands:
        line.put(replace(demand, due=demand.due + 7 * (demand.experiment % 3)))
    due = {demand.experiment: demand for demand in demands}
    while wrong := [key for key, share in line.shares(room).items() if share > due[key].due]:
        for key in wrong:
            line.put(due[key])
    assert line.shares(room) == schedule.allot(demands, room)


def test_a_choice_among_many_experiments_looks_at_few() -> None:
    """Its cost doesn't grow with the number of experiments."""
    costs = []
    for count in (1_000, 10_000):
        line = Line()
        for key in range(count):
            line.put(Demand(key, key % 3, 50))
        costs.append(steps.of(partial(line.shares, 16)))
    assert costs[0] == costs[1]
