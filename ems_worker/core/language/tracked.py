"""`metrics_to_track`: the metrics that results, points and statuses report."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from ems_worker.core.language import checks
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

Goal = Literal["minimize", "maximize"]
Source = Literal["run", "event"]
METRIC: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
METRIC_FORM: Final = "a metric's name: letters, digits and _.:/-, at most 128"
# How long to wait for a metric that arrives in an event of its own, unless the plan has its own time.
DEFAULT_METRIC_TIMEOUT_SECONDS: Final = 3600.0


@dataclass(frozen=True, slots=True)
class TrackedMetric:
    """A metric that results, points and statuses report; with a goal, points are ranked by its mean.

    With the source `event` it is computed after the run and arrives as sim.run_metrics, up to `timeout_seconds` after
    the end of the run.
    """

    name: str
    goal: Goal | None = None
    source: Source = "run"
    timeout_seconds: float = DEFAULT_METRIC_TIMEOUT_SECONDS


def parse(data: object, problems: Problems) -> tuple[TrackedMetric, ...]:
    """The `metrics_to_track` of a plan, in its order."""
    location: Location = ("metrics_to_track",)
    metrics: dict[str, TrackedMetric] = {}
    for index, item in enumerate(problems.sequence(data, location) or ()):
        here = (*location, index)
        metric = _metric(item, here, problems)
        if metric is not None and metric.name in metrics:
            problems.add("duplicate", here, f"metric {metric.name!r} is tracked twice")
        elif metric is not None:
            metrics[metric.name] = metric
    return tuple(metrics.values())


def _metric(item: object, location: Location, problems: Problems) -> TrackedMetric | None:
    if not isinstance(item, Mapping):
        name = problems.text(item, location, METRIC, METRIC_FORM)
        return None if name is None else TrackedMetric(name)
    problems.keys(item, location, ("name", "goal", "from", "timeout_seconds"))
    source: str | None = "run"
    timeout: float | None = DEFAULT_METRIC_TIMEOUT_SECONDS
    if "from" in item:
        source = problems.choice(item["from"], (*location, "from"), ("run", "event"))
    if "timeout_seconds" in item:
        timeout = checks.seconds(item["timeout_seconds"], (*location, "timeout_seconds"), problems)
        if source == "run":
            message = "'timeout_seconds' is how long to wait for a metric 'from: event'; this metric comes with its run"
            problems.add("contradiction", (*location, "timeout_seconds"), message, on_key=True)
    if "name" not in item:
        problems.add("missing_key", location, "a tracked metric needs a 'name'", on_key=True)
        return None
    name = problems.text(item["name"], (*location, "name"), METRIC, METRIC_FORM)
    goal = None
    if "goal" in item:
        goal = problems.choice(item["goal"], (*location, "goal"), ("minimize", "maximize"))
    if name is None or source is None or timeout is None:
        return None
    return TrackedMetric(name, cast("Goal | None", goal), cast("Source", source), timeout)
