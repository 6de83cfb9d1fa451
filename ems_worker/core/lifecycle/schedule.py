"""How the room in the run window is shared between experiments.

Experiments of the highest priority share it first. The room that they leave goes to the next lower priority.
"""

from collections.abc import Mapping, Sequence
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
