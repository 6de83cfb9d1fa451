"""How a plan's points are run and judged: limits, seeds, injected values and tracked metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, cast

from ems_worker.core import canonical, seeds
from ems_worker.core.language import paths, quotes
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

Goal = Literal["minimize", "maximize"]
Source = Literal["run", "event"]
METRIC: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
METRIC_FORM: Final = "a metric's name: letters, digits and _.:/-, at most 128"
ERROR_KINDS: Final = ("infrastructure", "timeout", "lost", "simulation", "infeasible", "stopped")
DEFAULT_RETRY_ON: Final = frozenset({"infrastructure", "timeout", "lost"})
MAX_PRIORITY: Final = 100
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%")
# How long to wait for a metric that arrives in an event of its own, unless the plan has its own time.
DEFAULT_METRIC_TIMEOUT_SECONDS: Final = 3600.0
_MAX_TIMEOUT_SECONDS: Final = 366 * 24 * 3600


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


@dataclass(frozen=True, slots=True)
class Seeds:
    """How the seeds of runs are chosen; see `core.seeds`."""

    policy: seeds.Policy = "common"
    root: int = 0
    values: tuple[int, ...] = ()

    def of(self, point: int, replicate: int) -> int:
        """The seed of one job."""
        return seeds.seed(self.policy, self.root, point, replicate, values=self.values)


@dataclass(frozen=True, slots=True)
class Inject:
    """The paths at which a run's configuration gets its seed and simulation id; None: not injected."""

    seed: paths.Path | None = None
    simulation_id: paths.Path | None = None


@dataclass(frozen=True, slots=True)
class MaxFailed:
    """How many jobs may fail before the experiment fails: either a count or a percentage of all jobs."""

    count: int | None = None
    percent: Fraction | None = None

    def allowed(self, jobs: int) -> int:
        """The number of failed jobs that an experiment with this number of jobs tolerates."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return int(jobs * self.percent / 100)


@dataclass(frozen=True, slots=True)
class ExperimentLimits:
    """The limits that a plan sets for its experiment; None: the worker's own limit applies.

    Runs of an experiment with a higher `priority` start before those with a lower one.
    """

    max_concurrent: int | None = None
    run_timeout_seconds: float | None = None
    max_attempts: int = 3
    retry_on: frozenset[str] = DEFAULT_RETRY_ON
    max_failed: MaxFailed = field(default_factory=lambda: MaxFailed(count=0))
    fail_fast: bool = False
    priority: int = 0


def parse_limits(data: object, problems: Problems) -> ExperimentLimits:
    """The `limits` of a plan; a limit with a problem has its default."""
    location: Location = ("limits",)
    spec = problems.mapping(data, location)
    if spec is None:
        return ExperimentLimits()
    known = "max_concurrent", "run_timeout_seconds", "max_attempts", "retry_on", "max_failed", "fail_fast", "priority"
    problems.keys(spec, location, known)
    default = ExperimentLimits()
    max_concurrent = timeout = max_attempts = retry_on = max_failed = fail_fast = priority = None
    if "max_concurrent" in spec:
        max_concurrent = problems.integer(spec["max_concurrent"], (*location, "max_concurrent"), 1, 1_000_000)
    if "run_timeout_seconds" in spec:
        timeout = _seconds(spec["run_timeout_seconds"], (*location, "run_timeout_seconds"), problems)
    if "max_attempts" in spec:
        max_attempts = problems.integer(spec["max_attempts"], (*location, "max_attempts"), 1, 1000)
    if "retry_on" in spec:
        kinds = problems.sequence(spec["retry_on"], (*location, "retry_on")) or ()
        retry_on = [
            problems.choice(kind, (*location, "retry_on", index), ERROR_KINDS) for index, kind in enumerate(kinds)
        ]
    if "max_failed" in spec:
        max_failed = _max_failed(spec["max_failed"], (*location, "max_failed"), problems)
    if "fail_fast" in spec:
        fail_fast = problems.boolean(spec["fail_fast"], (*location, "fail_fast"))
    if "priority" in spec:
        priority = problems.integer(spec["priority"], (*location, "priority"), -MAX_PRIORITY, MAX_PRIORITY)
    return ExperimentLimits(
        max_concurrent=max_concurrent,
        run_timeout_seconds=timeout,
        max_attempts=max_attempts or default.max_attempts,
        retry_on=default.retry_on if retry_on is None else frozenset(filter(None, retry_on)),
        max_failed=max_failed or default.max_failed,
        fail_fast=bool(fail_fast),
        priority=priority or default.priority,
    )


def _seconds(value: object, location: Location, problems: Problems) -> float | None:
    number = problems.number(value, location)
    if number is None:
        return None
    if 0 < number <= _MAX_TIMEOUT_SECONDS:
        return float(number)
    message = f"{quotes.brief(value)} is not greater than 0 and at most {_MAX_TIMEOUT_SECONDS} seconds"
    problems.add("out_of_range", location, message)
    return None


def _max_failed(value: object, location: Location, problems: Problems) -> MaxFailed | None:
    if isinstance(value, str):
        percent = _PERCENT.fullmatch(value)
        if percent and Fraction(percent[1]) <= 100:
            return MaxFailed(percent=Fraction(percent[1]))
        message = f"{quotes.brief(value)} is neither a number of jobs nor a percentage like '5%'"
        problems.add("bad_format", location, message)
        return None
    count = problems.integer(value, location, 0, 2**52)
    return None if count is None else MaxFailed(count=count)


def parse_seeds(data: object, replicates: int, problems: Problems) -> Seeds:
    """The `seeds` of a plan with this number of replicates."""
    location: Location = ("seeds",)
    spec = problems.mapping(data, location)
    if spec is None:
        return Seeds()
    problems.keys(spec, location, ("root", "policy", "values"))
    root: int | None = 0
    policy: str | None = "common"
    if "root" in spec:
        root = problems.integer(spec["root"], (*location, "root"), 0, 2**63 - 1)
    if "policy" in spec:
        policy = problems.choice(spec["policy"], (*location, "policy"), ("common", "independent", "list"))
    values: tuple[int, ...] = ()
    if policy == "list" and "values" not in spec:
        message = "policy 'list' needs the seeds in 'values', one per replicate"
        problems.add("missing_key", (*location, "policy"), message)
    elif policy != "list" and "values" in spec:
        problems.add("unknown_key", (*location, "values"), "'values' are for policy 'list'", on_key=True)
    elif policy == "list":
        values = _listed(spec["values"], replicates, (*location, "values"), problems)
    return Seeds(cast("seeds.Policy", policy or "common"), root or 0, values)


def _listed(data: object, replicates: int, location: Location, problems: Problems) -> tuple[int, ...]:
    """The seeds that a plan lists. All JSON readers keep whole numbers up to this limit exact."""
    given = problems.sequence(data, location)
    values = [problems.integer(item, (*location, index), 0, 2**53 - 1) for index, item in enumerate(given or ())]
    valid = [value for value in values if value is not None]
    if len(set(valid)) < len(valid):
        problems.add("duplicate", location, "a seed is listed twice; its replicates would be identical runs")
    if given is not None and len(values) < replicates:
        message = f"{len(values)} seeds for {replicates} replicates; each replicate needs one"
        problems.add("out_of_range", location, message)
    return tuple(valid)


def parse_inject(data: object, base: dict[str, JSON], problems: Problems) -> Inject:
    """The `inject` of a plan. Its paths may be new; an injected value may replace a scalar, but no mapping or list."""
    location: Location = ("inject",)
    spec = problems.mapping(data, location)
    if spec is None:
        return Inject()
    problems.keys(spec, location, ("seed", "simulation_id"))
    config = ConfigPaths(base, allow_new=True, problems=problems)
    targets: dict[str, paths.Path | None] = {}
    for key in ("seed", "simulation_id"):
        text = problems.text(spec[key], (*location, key)) if key in spec else None
        if text is not None:
            path = config.find(paths.split(text), (*location, key))
            if path is not None:
                _check_target(base, path, (*location, key), problems)
            targets[key] = path
    seed, simulation_id = targets.get("seed"), targets.get("simulation_id")
    if seed is not None and simulation_id is not None and paths.overlapping(seed, simulation_id):
        problems.add("overlapping_paths", (*location, "simulation_id"), "this would overwrite the seed")
    return Inject(seed, simulation_id)


def _check_target(base: dict[str, JSON], path: paths.Path, location: Location, problems: Problems) -> None:
    """Reports a path at which an injected value would replace more than one value."""
    for length in range(1, len(path)):
        parent = paths.get(base, path[:length])
        if not isinstance(parent, dict | list) and parent is not None:
            message = f"{quotes.dotted(path[:length])!r} is {quotes.describe(parent)}, which a mapping would replace"
            problems.add("bad_path", location, f"{message}: choose a separate path such as run.seed")
            return
    existing = paths.get(base, path)
    if isinstance(existing, dict | list):
        message = f"the base configuration has {quotes.describe(existing)} here, which would be lost"
        problems.add("bad_path", location, f"{message}: choose a path inside it, or a separate path such as run.seed")


def parse_metrics(data: object, problems: Problems) -> tuple[TrackedMetric, ...]:
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
        timeout = _seconds(item["timeout_seconds"], (*location, "timeout_seconds"), problems)
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
