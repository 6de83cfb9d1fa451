"""The sources of an axis's values: four cases, which counting, expanding and checking a plan distinguish.

Plans have more kinds of axes (`axis_kinds`); each kind gives one of these.
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
    """The same value at all points; `values` has a single element."""

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
