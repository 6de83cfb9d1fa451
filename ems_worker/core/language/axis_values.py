"""How an axis gets its values: the four cases that counting, expanding and checking a plan tell apart.

The kinds of axes in plans (`axis_kinds`) are more, but each of them results in one of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ems_worker.core import canonical
from ems_worker.core.language import expressions, samples
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON


@dataclass(frozen=True, slots=True)
class Varied:
    """One value per point, in order. `location` is that of the list or range which gives them."""

    values: Sequence[JSON]
    location: Location


@dataclass(frozen=True, slots=True)
class Constant:
    """The same value at all points: the only one of `values`."""

    values: Sequence[JSON]
    location: Location


@dataclass(frozen=True, slots=True)
class Sampled:
    """Samples of a distribution: `values` is empty until the design has drawn them.

    `choices` are the values that the plan lists for the distribution, if any, at `location`; without a list it is the
    location of the distribution's name.
    """

    distribution: samples.Distribution
    location: Location
    choices: Sequence[JSON] = ()
    values: Sequence[JSON] = ()


@dataclass(frozen=True, slots=True)
class Derived:
    """A value that is computed from other parameters at each point."""

    values: ClassVar[Sequence[JSON]] = ()
    expression: expressions.Expression


AxisValues = Varied | Constant | Sampled | Derived
