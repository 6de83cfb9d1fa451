"""The sources of an axis's values: four cases, which counting, expanding and checking a plan distinguish.

Plans have more kinds of axes (`axis_kinds`); each kind gives one of these.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ems_worker.core import canonical
from ems_worker.core.language import expressions, quantiles
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON


@dataclass(frozen=True, slots=True)
class Part:
    """A list or range among several that are joined: the number of its first value, and its location."""

    first: int
    location: Location
    listed: bool


@dataclass(frozen=True, slots=True)
class Varied:
    """One value per point, in order. `location` is that of the list or range which gives them, or of their parts."""

    values: Sequence[JSON]
    location: Location
    parts: tuple[Part, ...] = ()

    def at(self, index: int) -> Location:
        """The location of a value of a list, by its number; that of the range in the case of a part that is one."""
        if not self.parts:
            return (*self.location, index)
        part = self.parts[bisect_right(self.parts, index, key=lambda part: part.first) - 1]
        return (*part.location, index - part.first) if part.listed else part.location


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value at all points; `values` has a single element."""

    values: Sequence[JSON]
    location: Location


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples of a distribution: `values` is empty until the design has drawn them.

    `choices` are the values that the plan lists for the distribution, if any, at `location`; without a list it is the
    location of the distribution's name. With `unique` no value is drawn twice.
    """

    distribution: quantiles.Distribution
    location: Location
    choices: Sequence[JSON] = ()
    values: Sequence[JSON] = ()
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that is computed from other parameters at each point."""

    values: ClassVar[Sequence[JSON]] = ()
    expression: expressions.Expression


AxisValues = Varied | Constant | Sampled | Derived
