"""Which jobs next: how the room in the run window is shared between experiments."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Demand:
    """What an experiment could use: runs open now, runs due to be submitted, and its own limit on open runs."""

    experiment: int
    open: int
    due: int
    max_concurrent: int | None = None

    @property
    def most(self) -> int:
        """How many runs it may have open if the window allows."""
        most = self.open + self.due
        return most if self.max_concurrent is None else max(self.open, min(most, self.max_concurrent))


def allot(demands: Sequence[Demand], room: int) -> Mapping[int, int]:
    """How many runs each experiment may submit now so that the open runs become as equal as can be (max-min fair).

    `room` is what the run window has left. The rest of a division goes to the experiments named first.
    """
    granted = {demand.experiment: 0 for demand in demands}
    hungry = [demand for demand in demands if demand.most > demand.open]
    while room > 0 and hungry:
        # Raise those with the fewest open runs to the next level, together.
        level = min(demand.open + granted[demand.experiment] for demand in hungry)
        lowest = [demand for demand in hungry if demand.open + granted[demand.experiment] == level]
        others = [demand.open + granted[demand.experiment] for demand in hungry if demand not in lowest]
        ceiling = min([demand.most for demand in lowest] + others)
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
