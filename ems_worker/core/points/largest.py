"""Whether every run of a plan fits into one message to the orchestrator: found out without rendering them all."""

from collections.abc import Mapping, Sequence
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical, ids
from ems_worker.core.language import paths
from ems_worker.core.points import plan, render, space

JSON = canonical.JSON

# What gRPC servers take unless they are configured otherwise.
DEFAULT_LIMIT_BYTES: Final = 4 * 1024 * 1024
# Ids, digest, seed and the framing of a start command, each field with its tag and length.
_ENVELOPE: Final = 512
_FRAME: Final = 8
# No float is longer.
_NUMBER: Final = 32
# Of a simulation id, which is in the command and may be injected into the configuration.
_LONGEST_NAME: Final = 128
# How many measured values are remembered.
_KEPT: Final = 100_000


def over(parsed: plan.Plan, experiment_id: str, limit: int) -> errors.Problem | None:
    """What is wrong with a plan one of whose start commands has more than `limit` bytes; None: all fit.

    A bound for all points at once settles nearly every plan. Where it is too much, each point is measured, and none is
    rendered: its size is that of the template's text, worked out once, and of the values that fill it.
    """
    sizes = _Sizes(parsed)
    if sizes.bound() <= limit:
        return None
    if (least := sizes.least()) > limit:
        return _problem(0, least, limit, None)
    template = render.Template(parsed)
    for point in space.points(parsed):
        name = ids.simulation_id(experiment_id, point.index, parsed.replicates - 1, 1)
        size = template.size(point.params, parsed.seeds.of(point.index, 0), name, sizes.measure)
        size += sizes.envelope + _labels(point.labels)
        if size > limit:
            return _problem(point.index, size, limit, sizes.longest(point.params))
    return None


class _Sizes:
    """Measures values in bytes, long ones once: they are few, and shared by many points."""

    def __init__(self, parsed: plan.Plan) -> None:
        self._plan = parsed
        self._indents = {one.name: 2 * len(one.path) for one in parsed.parameters}
        self._base = len(render.block(parsed.base).encode())
        self.envelope = _ENVELOPE + _labels(parsed.labels)
        # The value is kept beside its size, so that its place in memory stays its name.
        self._known: dict[tuple[int, int], tuple[JSON, int]] = {}

    def bound(self) -> int:
        """No start command has more: the whole base configuration, and the largest value of each parameter."""
        # Paths that the base doesn't have bring their keys' lines along.
        lines = sum(2 * len(path) + 6 * len(str(step).encode()) + 8 for path in self._targets() for step in path)
        runs, axes = self._plan.grid.ingredients()
        of_runs = max((_labels(run.labels) + self._of(run.overrides) for run in runs), default=0)
        of_axes = sum(self._most(name, values) for name, values in axes)
        return self.envelope + self._base + lines + 2 * _LONGEST_NAME + of_runs + of_axes

    def least(self) -> int:
        """No start command has fewer: the base configuration without all that may be replaced in it."""
        base = self._plan.base
        replaced = sum(render.size(paths.get(base, path), 2 * len(path)) for path in self._targets())
        return self._base - replaced

    def _targets(self) -> list[paths.Path]:
        """The paths of the configuration at which runs differ."""
        inject = self._plan.inject
        injected = [path for path in (inject.seed, inject.simulation_id) if path is not None]
        return [*(one.path for one in self._plan.parameters), *injected]

    def longest(self, params: Mapping[str, JSON]) -> str | None:
        """The parameter that takes most."""
        return max(params, key=lambda name: self._value(name, params[name]), default=None)

    def measure(self, value: JSON, indent: int) -> int:
        """As `render.size`."""
        if not isinstance(value, str | list | dict):
            return render.size(value, indent)
        known = self._known.get((id(value), indent))
        if known is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            known = self._known[id(value), indent] = (value, render.size(value, indent))
        return known[1]

    def _most(self, name: str, values: Sequence[JSON]) -> int:
        # By index: ranges and samples work their values out, for any index that they are asked for.
        return max((self._value(name, values[index]) for index in range(len(values))), default=0)

    def _of(self, params: Mapping[str, JSON]) -> int:
        return sum(self._value(name, value) for name, value in params.items())

    def _value(self, name: str, value: JSON) -> int:
        """A bound: at what indent a value really is depends on the lists above it."""
        if isinstance(value, float):
            return _NUMBER
        return self.measure(value, self._indents[name])


def _labels(labels: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) + _FRAME for name, value in labels.items())


def _problem(point: int, size: int, limit: int, longest: str | None) -> errors.Problem:
    most = f"; its largest parameter is {longest}" if longest is not None else ""
    words = (
        f"the start command of point {point} has {size:,} bytes and the orchestrator takes {limit:,}{most}. Make the "
        "configuration smaller, or raise the orchestrator's message limit"
    )
    return errors.Problem("configuration_too_large", longest or "", words)
