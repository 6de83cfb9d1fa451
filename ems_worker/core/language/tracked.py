"""`metrics_to_track`: the metrics that results, points and statuses report."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from ems_worker.core.language import checks, foreign
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

Goal = Literal["minimize", "maximize"]
Source = Literal["run", "event"]
MAX_NAME: Final = 128
_KEYS: Final = ("name", "goal", "from", "timeout", "timeout_seconds", "unit", "label")
# How long to wait for a metric that arrives in an event of its own, unless the plan has its own time.
DEFAULT_METRIC_TIMEOUT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class TrackedMetric:
    """A metric that results, points and statuses report; with a goal, points are ranked by its mean.

    With the source `event` it is computed after the run and arrives as sim.run_metrics, up to `timeout_seconds` after
    the end of the run. `unit` and `label` are for tables and pictures.
    """

    name: str
    goal: Goal | None = None
    source: Source = "run"
    timeout_seconds: float = DEFAULT_METRIC_TIMEOUT_SECONDS
    unit: str | None = None
    label: str | None = None


def parse(data: object, problems: Problems) -> tuple[TrackedMetric, ...]:
    """The `metrics_to_track` of a plan, in its order."""
    location: Location = ("metrics_to_track",)
    metrics: dict[str, TrackedMetric] = {}
    form = "write [{name: ..., goal: ...}]" if isinstance(data, Mapping) else "write [name, ...]"
    for index, item in enumerate(problems.sequence(data, location, form) or ()):
        here = (*location, index)
        metric = _metric(item, here, problems)
        if metric is not None and metric.name in metrics:
            problems.add("duplicate", here, f"metric {metric.name!r} is tracked twice")
        elif metric is not None:
            metrics[metric.name] = metric
    return tuple(metrics.values())


def _metric(item: object, location: Location, problems: Problems) -> TrackedMetric | None:
    if not isinstance(item, Mapping):
        name = checks.line(item, location, problems, MAX_NAME)
        return None if name is None else TrackedMetric(name)
    problems.keys(item, location, _KEYS, foreign.METRIC)
    source: str | None = "run"
    timeout: float | None = DEFAULT_METRIC_TIMEOUT_SECONDS
    if "from" in item:
        source = problems.choice(item["from"], (*location, "from"), ("run", "event"))
    given = next((key for key in ("timeout", "timeout_seconds") if key in item), None)
    if given is not None:
        timeout = checks.duration(item, "timeout", location, problems)
        if source == "run":
            message = f"{given!r} is how long to wait for a metric 'from: event'; this metric comes with its run"
            problems.add("contradiction", (*location, given), message, on_key=True)
    if "name" not in item:
        if "name" not in foreign.meant(foreign.METRIC, item):
            message = "a tracked metric needs a 'name': write {name: ..., goal: minimize}"
            problems.add("missing_key", location, message, on_key=True)
        return None
    name = checks.line(item["name"], (*location, "name"), problems, MAX_NAME)
    goal = None
    if "goal" in item:
        goal = problems.choice(item["goal"], (*location, "goal"), ("minimize", "maximize"), foreign.GOALS)
    unit, label = (checks.shown(key, item, location, problems) for key in ("unit", "label"))
    if name is None or source is None or timeout is None:
        return None
    return TrackedMetric(name, cast("Goal | None", goal), cast("Source", source), timeout, unit, label)
