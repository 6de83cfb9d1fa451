"""What makes a point of one version of a plan the same point in the next.

A point keeps its number as long as its experiment exists. `extend` gives an experiment a new plan, whose own points are
in another order: each is looked up by its identity among those that are there, and is new if it isn't found.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import paths
from ems_worker.core.points import space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.space import Point

JSON = canonical.JSON

DIGEST_BYTES: Final = 16


def digest(params: Mapping[str, JSON], suffix: str | None, dotted: Mapping[str, str]) -> bytes:
    """The identity of a point: 16 bytes of its run_id_suffix, if it has one, and its parameters.

    `dotted` has the dotted path of each parameter's name; an empty one for a variable. Parameters are equal if their
    canonical JSON is, so that `1` and `1.0` are two values, as in the rest of a plan; parameters that a condition
    leaves out are absent. The suffix alone wouldn't do: with a parameter_space, each entry of `runs` is a point at
    every combination.
    """
    by_path = {dotted.get(name) or name: value for name, value in params.items()}
    text = canonical.text([suffix, by_path])
    return hashlib.blake2b(text.encode(), digest_size=DIGEST_BYTES, person=b"ems-point-1").digest()


@dataclass(frozen=True, slots=True)
class IdentifiedPoint:
    """A point of a plan, at its position among that plan's own points, with its identity.

    Several points of a plan may have the same identity: samples may repeat, and entries of `runs` may be equal.
    """

    point: Point
    digest: bytes


def dotted(plan: Plan) -> dict[str, str]:
    """The dotted path of each parameter of a plan, by its name in points; empty for a variable."""
    return {parameter.name: paths.written(plan.base, parameter.path) for parameter in plan.parameters}


def points(plan: Plan, start: int = 0, max_steps: float = math.inf) -> Iterator[IdentifiedPoint]:
    """The plan's own points from position `start` on, in its order; see `space.points`."""
    by_name = dotted(plan)
    for point in space.points(plan, start, max_steps):
        yield IdentifiedPoint(point, digest(point.params, point.run_id_suffix, by_name))
