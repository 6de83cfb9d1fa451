"""Checks that each start command of a plan fits into one message, without rendering all configurations."""

from collections.abc import Mapping, Sequence
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical, ids
from ems_worker.core.language import elements, paths
from ems_worker.core.points import render, space
from ems_worker.core.points.plan import Plan

JSON = canonical.JSON

# What gRPC servers take unless they are configured otherwise.
DEFAULT_LIMIT_BYTES: Final = 4 * 1024 * 1024
# Ids, digest, seed and the framing of a start command: each field has a tag and a length.
_ENVELOPE: Final = 512
_FRAME: Final = 8
# The longest text of a float.
_MAX_FLOAT: Final = 32
# The length of a simulation id, which is in the command and may be injected into the configuration.
_MAX_ID: Final = 128
# The number of values whose sizes are cached.
MAX_CACHED: Final = 100_000


def over(plan: Plan, experiment_id: str, limit: int) -> errors.Problem | None:
    """The problem of a plan with a start command of more than `limit` bytes; None if all are smaller.

    For nearly all plans an upper bound for all points is small enough. Otherwise each point is measured without being
    rendered: its size is that of the template's text, computed once, plus that of its values.
    """
    sizes = _Sizes(plan)
    if sizes.bound() <= limit:
        return None
    if (least := sizes.least()) > limit:
        return _problem(0, least, limit, None)
    template = render.Template(plan)
    for point in space.points(plan):
        simulation_id = ids.simulation_id(experiment_id, point.index, plan.replicates - 1, 1)
        size = template.size(point.params, plan.seeds.of(point.index, 0), simulation_id, sizes.measure)
        size += sizes.envelope + _labels(point.labels)
        if size > limit:
            return _problem(point.index, size, limit, sizes.longest(point.params))
    return None


class _Sizes:
    """Measures values in bytes. The sizes of long values are cached: they are few, and shared by many points."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._indents = {parameter.name: 2 * len(parameter.path) for parameter in plan.parameters}
        self._copies = {each.name: len(elements.each(plan.base, each.path)) for each in plan.parameters}
        self._base = len(render.block(plan.base).encode())
        self.envelope = _ENVELOPE + _labels(plan.labels)
        # By the id of the value, which is kept beside its size so that the id stays unique.
        self._cache: dict[tuple[int, int], tuple[JSON, int]] = {}

    def bound(self) -> int:
        """An upper bound of all start commands: the base configuration plus the largest value of each parameter."""
        # Paths that the base doesn't have add lines for their keys.
        lines = sum(2 * len(path) + 6 * len(str(step).encode()) + 8 for path in self._targets() for step in path)
        listed, axes = self._plan.grid.values()
        of_listed = max((_labels(point.labels) + self._of(point.overrides) for point in listed), default=0)
        of_axes = sum(self._largest(name, values) for name, values in axes)
        return self.envelope + self._base + lines + 2 * _MAX_ID + of_listed + of_axes

    def least(self) -> int:
        """A lower bound of all start commands: the base configuration without the values that runs may replace."""
        base = self._plan.base
        replaced = sum(render.size(paths.get(base, path), 2 * len(path)) for path in self._targets())
        return self._base - replaced

    def _targets(self) -> list[paths.Path]:
        """The paths at which the configurations of runs differ."""
        inject = self._plan.inject
        injected = [path for path in (inject.seed, inject.simulation_id) if path is not None]
        each = (path for one in self._plan.parameters if one.path for path in elements.each(self._plan.base, one.path))
        return [*each, *injected]

    def longest(self, params: Mapping[str, JSON]) -> str | None:
        """The parameter with the largest value in the configuration."""
        configured = [name for name in params if self._indents[name]]
        return max(configured, key=lambda name: self._value(name, params[name]), default=None)

    def measure(self, value: JSON, indent: int) -> int:
        """`render.size` with a cache."""
        if not isinstance(value, str | list | dict):
            return render.size(value, indent)
        cached = self._cache.get((id(value), indent))
        if cached is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            cached = self._cache[id(value), indent] = (value, render.size(value, indent))
        return cached[1]

    def _largest(self, name: str, values: Sequence[JSON]) -> int:
        # By index, because a range computes its values on access.
        largest = max((self._value(name, values[index]) for index in range(len(values))), default=0)
        return self._copies[name] * largest

    def _of(self, params: Mapping[str, JSON]) -> int:
        return sum(self._copies[name] * self._value(name, value) for name, value in params.items())

    def _value(self, name: str, value: JSON) -> int:
        """An upper bound, because the indentation of a value depends on the lists above it."""
        if isinstance(value, float):
            return _MAX_FLOAT
        return self.measure(value, self._indents[name])


def _labels(labels: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) + _FRAME for name, value in labels.items())


def _problem(point: int, size: int, limit: int, longest: str | None) -> errors.Problem:
    largest = f"; its largest parameter is {longest}" if longest is not None else ""
    message = (
        f"the start command of point {point} has {size:,} bytes, and the orchestrator accepts {limit:,}{largest}. Make "
        "the configuration smaller, or raise the orchestrator's message limit"
    )
    return errors.Problem("configuration_too_large", longest or "", message)
