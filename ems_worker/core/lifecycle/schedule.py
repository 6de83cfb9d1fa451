"""Which jobs next: how the room in the run window is shared between experiments.

Those of the highest priority come first, and share among themselves; what they leave is for the next.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What an experiment could use: runs open now, runs due to be submitted, and its own limit on open runs.

    A higher `priority` goes first.
    """

    experiment: int
    open: int
    due: int
    max_concurrent: int | None = None
    priority: int = 0

    @property
    def most(self) -> int:
        """How many runs it may have open if the window allows."""
        most = self.open + self.due
        return most if self.max_concurrent is None else max(self.open, min(most, self.max_concurrent))


def allot(demands: Sequence[Demand], room: int) -> Mapping[int, int]:
    """How many runs each experiment may submit now; `room` is what the run window has left.

    Strictly by priority: a lower one gets what higher ones can't use. Within one, the open runs become as equal as can
    be (max-min fair), and the rest of a division goes to the experiments named first.
    """
    granted: dict[int, int] = {}
    for priority in sorted({demand.priority for demand in demands}, reverse=True):
        granted |= _share([demand for demand in demands if demand.priority == priority], room - sum(granted.values()))
    return granted


def _share(demands: Sequence[Demand], room: int) -> dict[int, int]:
    """What `allot` gives to experiments of one priority."""
    granted = {demand.experiment: 0 for demand in demands}
    hungry = [demand for demand in demands if demand.most > demand.open]
    while room > 0 and hungry:
        # Raise those with the fewest open runs to the next level, together.
        levels = [demand.open + granted[demand.experiment] for demand in hungry]
        level = min(levels)
        lowest = [demand for demand, at in zip(hungry, levels, strict=True) if at == level]
        ceiling = min([demand.most for demand in lowest] + [at for at in levels if at > level])
        step = min(ceiling - level, room // len(lowest))
        if step == 0:
            for demand in lowest[:room]:
                granted[demand.experiment] += 1
            break
        for demand in lowest:
            granted[demand.experiment] += step
        room -= step * len(lowest)
        hungry = [demand for demand in hungry if demand.open + granted[demand.experiment] < demand.most]
    return {experiment: count for experiment, count in granted.items() if count}
