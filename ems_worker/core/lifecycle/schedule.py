"""How the room in the run window is shared between experiments.

Experiments of the highest priority share it first. The room that they leave goes to the next lower priority.
"""

from bisect import bisect_left, insort
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """How many runs of an experiment are open and how many are due, with its own limit on open runs.

    A higher `priority` goes first.
    """

    experiment: int
    open: int
    due: int
    max_concurrent: int | None = None
    priority: int = 0

    @property
    def max_open(self) -> int:
        """How many runs it would have open if the window had room for all."""
        wanted = self.open + self.due
        return wanted if self.max_concurrent is None else max(self.open, min(wanted, self.max_concurrent))


def allot(demands: Sequence[Demand], room: int) -> Mapping[int, int]:
    """How many runs each experiment may submit now; `room` is what the run window has left.

    Priority is strict: a lower priority gets only what the higher ones can't use. Within a priority the numbers of open
    runs become as equal as possible (max-min fairness), and a remainder goes to the experiments listed first.
    """
    granted: dict[int, int] = {}
    for priority in sorted({demand.priority for demand in demands}, reverse=True):
        granted |= _share([demand for demand in demands if demand.priority == priority], room - sum(granted.values()))
    return granted


def _share(demands: Sequence[Demand], room: int) -> dict[int, int]:
    """What `allot` grants to experiments of the same priority."""
    granted = {demand.experiment: 0 for demand in demands}
    unsatisfied = [demand for demand in demands if demand.max_open > demand.open]
    while room > 0 and unsatisfied:
        # Together, raise the experiments with the fewest open runs to the next level.
        levels = [demand.open + granted[demand.experiment] for demand in unsatisfied]
        lowest_level = min(levels)
        lowest = [demand for demand, level in zip(unsatisfied, levels, strict=True) if level == lowest_level]
        ceiling = min([demand.max_open for demand in lowest] + [level for level in levels if level > lowest_level])
        step = min(ceiling - lowest_level, room // len(lowest))
        if step == 0:
            for demand in lowest[:room]:
                granted[demand.experiment] += 1
            break
        for demand in lowest:
            granted[demand.experiment] += step
        room -= step * len(lowest)
        unsatisfied = [demand for demand in unsatisfied if demand.open + granted[demand.experiment] < demand.max_open]
    return {experiment: count for experiment, count in granted.items() if count}


class Line:
    """Experiments with demands, in the order in which they get room. A choice looks only at as many as there is room.

    Of these each uses some of the room before any later one gets a part of it.
    """

    def __init__(self) -> None:
        self._demands: dict[int, Demand] = {}
        self._places: list[tuple[int, int, int]] = []

    @property
    def experiments(self) -> Set[int]:
        """The experiments that have a demand."""
        return self._demands.keys()

    def put(self, demand: Demand) -> None:
        """Adds a demand, in place of an earlier one of the same experiment."""
        earlier, wants = self._demands.get(demand.experiment), demand.max_open > demand.open
        if earlier is None or not wants or _place(earlier) != _place(demand):
            self.remove(demand.experiment)
            if not wants:
                return
            insort(self._places, _place(demand))
        self._demands[demand.experiment] = demand

    def remove(self, experiment: int) -> None:
        """Removes the demand of an experiment, if there is one."""
        demand = self._demands.pop(experiment, None)
        if demand is not None:
            del self._places[bisect_left(self._places, _place(demand))]

    def shares(self, room: int) -> Mapping[int, int]:
        """What `allot` grants, given all demands in the order of their experiments' keys."""
        first = sorted(experiment for _, _, experiment in self._places[:room])
        return allot([self._demands[experiment] for experiment in first], room)


def _place(demand: Demand) -> tuple[int, int, int]:
    return -demand.priority, demand.open, demand.experiment
