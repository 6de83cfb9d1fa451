"""Whether every run of a plan fits into one message to the orchestrator: found out without rendering them all."""

from collections.abc import Mapping
from typing import Final

from ems_worker import errors
from ems_worker.core import canonical, ids, plan, render, space

JSON = canonical.JSON

# Ids, digest, seed and the framing of a start command, each field with its tag and length.
_ENVELOPE: Final = 512
_FRAME: Final = 8
# No number, boolean or null is longer.
_NUMBER: Final = 32
# Of a simulation id, which is in the command and may be injected into the configuration.
_LONGEST_NAME: Final = 128


def over(parsed: plan.Plan, experiment_id: str, limit: int) -> errors.Problem | None:
    """What is wrong with a plan one of whose start commands has more than `limit` bytes; None: all fit.

    Each point's size is bounded by that of the base configuration and of the values that it sets; only where that is
    too much is the point rendered.
    """
    sizes = _Sizes(parsed)
    if sizes.fixed + sizes.most() <= limit:
        return None
    template = render.Template(parsed)
    for point in space.points(parsed):
        labels = _labels(point.labels)
        if sizes.fixed + labels + sizes.of(point.params) <= limit:
            continue
        name = ids.simulation_id(experiment_id, point.index, parsed.replicates - 1, 1)
        size = sizes.envelope + labels + len(template.render(point.params, parsed.seeds.of(point.index, 0), name))
        if size > limit:
            return _problem(point.index, size, limit, sizes.longest(point.params))
    return None


class _Sizes:
    """Upper bounds, in bytes. `fixed`: everything but what points set."""

    def __init__(self, parsed: plan.Plan) -> None:
        self._grid = parsed.grid
        self._indents = {one.name: 2 * len(one.path) for one in parsed.parameters}
        self.envelope = _ENVELOPE + _labels(parsed.labels)
        # Paths that the base doesn't have bring their keys' lines along.
        paths = [one.path for one in parsed.parameters]
        paths += [path for path in (parsed.inject.seed, parsed.inject.simulation_id) if path is not None]
        lines = sum(2 * len(path) + 6 * len(str(step).encode()) + 8 for path in paths for step in path)
        self.fixed = self.envelope + lines + 2 * _LONGEST_NAME + len(render.block(parsed.base).encode())
        # Long values are few and shared by many points: each is measured once.
        self._known: dict[int, tuple[JSON, int]] = {}

    def most(self) -> int:
        """A bound of `of` for every point, from the values of each parameter alone."""
        runs, axes = self._grid.ingredients()
        of_runs = max((_labels(run.labels) + self.of(run.overrides) for run in runs), default=0)
        of_axes = sum(max((self._value(name, value) for value in values), default=0) for name, values in axes)
        return of_runs + of_axes

    def of(self, params: Mapping[str, JSON]) -> int:
        return sum(self._value(name, value) for name, value in params.items())

    def longest(self, params: Mapping[str, JSON]) -> str | None:
        """The parameter that takes most."""
        return max(params, key=lambda name: self._value(name, params[name]), default=None)

    def _value(self, name: str, value: JSON) -> int:
        if value is None or isinstance(value, int | float):
            return _NUMBER if not isinstance(value, int) or abs(value) < 2**64 else len(str(value))
        known = self._known.get(id(value))
        if known is None:
            known = self._known[id(value)] = (value, render.size(value, self._indents[name]))
        return known[1]


def _labels(labels: Mapping[str, str]) -> int:
    return sum(len(name.encode()) + len(value.encode()) + _FRAME for name, value in labels.items())


def _problem(point: int, size: int, limit: int, longest: str | None) -> errors.Problem:
    most = f"; its largest parameter is {longest}" if longest is not None else ""
    words = (
        f"the start command of point {point} has {size:,} bytes and the orchestrator takes {limit:,}{most}. Make the "
        "configuration smaller, or raise the orchestrator's message limit"
    )
    return errors.Problem("configuration_too_large", longest or "", words)
