"""The parts of a plan that say how its runs are made and judged: limits, seeds, injected values, tracked metrics."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, Literal, cast

from ems_worker.core import canonical, seeds
from ems_worker.core.language import axes, paths, problems

JSON = canonical.JSON

Goal = Literal["minimize", "maximize"]
Source = Literal["run", "event"]
METRIC: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
METRIC_FORM: Final = "a metric's name: letters, digits and _.:/-, at most 128"
ERROR_KINDS: Final = ("infrastructure", "timeout", "lost", "simulation", "infeasible", "stopped")
DEFAULT_RETRY_ON: Final = frozenset({"infrastructure", "timeout", "lost"})
HIGHEST_PRIORITY: Final = 100
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%")
# How long a metric that comes by an event of its own is waited for, unless the plan says.
DEFAULT_METRIC_TIMEOUT_SECONDS: Final = 3600.0
_LONGEST_TIMEOUT: Final = 366 * 24 * 3600


@dataclass(frozen=True, slots=True)
class TrackedMetric:
    """A metric that results, points and status report; with a goal, points are ranked by its mean.

    From `event`: it is computed after the run and comes by sim.run_metrics, waited for `timeout_seconds` from the end
    of the run.
    """

    name: str
    goal: Goal | None = None
    source: Source = "run"
    timeout_seconds: float = DEFAULT_METRIC_TIMEOUT_SECONDS


@dataclass(frozen=True, slots=True)
class Seeds:
    """Where the seeds of runs come from; see `core.seeds`."""

    policy: seeds.Policy = "common"
    root: int = 0
    values: tuple[int, ...] = ()

    def of(self, point: int, replicate: int) -> int:
        """The seed of one job."""
        return seeds.seed(self.policy, self.root, point, replicate, self.values)


@dataclass(frozen=True, slots=True)
class Inject:
    """Where a run's seed and its simulation id are written into its configuration, if at all."""

    seed: paths.Path | None = None
    simulation_id: paths.Path | None = None


@dataclass(frozen=True, slots=True)
class MaxFailed:
    """How many jobs may fail before the experiment has: a count, or a percentage of all jobs. Exactly one is set."""

    count: int | None = None
    percent: Fraction | None = None

    def allowed(self, jobs: int) -> int:
        """The number of failed jobs that an experiment of so many jobs bears."""
        if self.count is not None:
            return self.count
        assert self.percent is not None
        return int(jobs * self.percent / 100)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of an experiment; None is no bound of the plan's own. Times in seconds.

    Runs of an experiment of a higher `priority` are started before those of a lower one.
    """

    max_concurrent: int | None = None
    run_timeout_seconds: float | None = None
    max_attempts: int = 3
    retry_on: frozenset[str] = DEFAULT_RETRY_ON
    max_failed: MaxFailed = field(default_factory=lambda: MaxFailed(count=0))
    fail_fast: bool = False
    priority: int = 0


def read_limits(data: object, found: problems.Problems) -> Limits:
    """The `limits` of a plan; what is wrong is reported and left at its default."""
    place: problems.Place = ("limits",)
    spec = found.mapping(data, place)
    if spec is None:
        return Limits()
    known = "max_concurrent", "run_timeout_seconds", "max_attempts", "retry_on", "max_failed", "fail_fast", "priority"
    found.keys(spec, place, known)
    default = Limits()
    concurrent = timeout = attempts = retry_on = failed = fast = priority = None
    if "max_concurrent" in spec:
        concurrent = found.integer(spec["max_concurrent"], (*place, "max_concurrent"), 1, 1_000_000)
    if "run_timeout_seconds" in spec:
        timeout = _seconds(spec["run_timeout_seconds"], (*place, "run_timeout_seconds"), found)
    if "max_attempts" in spec:
        attempts = found.integer(spec["max_attempts"], (*place, "max_attempts"), 1, 1000)
    if "retry_on" in spec:
        kinds = found.sequence(spec["retry_on"], (*place, "retry_on")) or ()
        retry_on = [found.choice(kind, (*place, "retry_on", at), ERROR_KINDS) for at, kind in enumerate(kinds)]
    if "max_failed" in spec:
        failed = _max_failed(spec["max_failed"], (*place, "max_failed"), found)
    if "fail_fast" in spec:
        fast = found.boolean(spec["fail_fast"], (*place, "fail_fast"))
    if "priority" in spec:
        priority = found.integer(spec["priority"], (*place, "priority"), -HIGHEST_PRIORITY, HIGHEST_PRIORITY)
    return Limits(
        max_concurrent=concurrent,
        run_timeout_seconds=timeout,
        max_attempts=attempts or default.max_attempts,
        retry_on=default.retry_on if retry_on is None else frozenset(filter(None, retry_on)),
        max_failed=failed or default.max_failed,
        fail_fast=bool(fast),
        priority=priority or default.priority,
    )


def _seconds(value: object, place: problems.Place, found: problems.Problems) -> float | None:
    number = found.number(value, place)
    if number is None:
        return None
    if 0 < number <= _LONGEST_TIMEOUT:
        return float(number)
    found.add("out_of_range", place, f"{problems.brief(value)} is not above 0 and at most {_LONGEST_TIMEOUT} seconds")
    return None


def _max_failed(value: object, place: problems.Place, found: problems.Problems) -> MaxFailed | None:
    if isinstance(value, str):
        percent = _PERCENT.fullmatch(value)
        if percent and Fraction(percent[1]) <= 100:
            return MaxFailed(percent=Fraction(percent[1]))
        found.add(
            "bad_format", place, f"{problems.brief(value)} is neither a number of jobs nor a percentage like '5%'"
        )
        return None
    count = found.integer(value, place, 0, 2**52)
    return None if count is None else MaxFailed(count=count)


def read_seeds(data: object, replicates: int, found: problems.Problems) -> Seeds:
    """The `seeds` of a plan that has so many replicates."""
    place: problems.Place = ("seeds",)
    spec = found.mapping(data, place)
    if spec is None:
        return Seeds()
    found.keys(spec, place, ("root", "policy", "values"))
    root: int | None = 0
    policy: str | None = "common"
    if "root" in spec:
        root = found.integer(spec["root"], (*place, "root"), 0, 2**63 - 1)
    if "policy" in spec:
        policy = found.choice(spec["policy"], (*place, "policy"), ("common", "independent", "list"))
    values: tuple[int, ...] = ()
    if policy == "list" and "values" not in spec:
        found.add("missing_key", (*place, "policy"), "policy 'list' needs the seeds: 'values', one a replicate")
    elif policy != "list" and "values" in spec:
        found.add("unknown_key", (*place, "values"), "'values' are for policy 'list'", on_key=True)
    elif policy == "list":
        values = _listed(spec["values"], replicates, (*place, "values"), found)
    return Seeds(cast("seeds.Policy", policy or "common"), root or 0, values)


def _listed(data: object, replicates: int, place: problems.Place, found: problems.Problems) -> tuple[int, ...]:
    """A plan's own seeds. They are bounded by what JSON carries exactly everywhere."""
    given = found.sequence(data, place)
    values = [found.integer(item, (*place, at), 0, 2**53 - 1) for at, item in enumerate(given or ())]
    whole = [value for value in values if value is not None]
    if len(set(whole)) < len(whole):
        found.add("duplicate", place, "a seed is here twice: its replicates would be the same run")
    if given is not None and len(values) < replicates:
        found.add("out_of_range", place, f"{len(values)} seeds for {replicates} replicates; each needs one")
    return tuple(whole)


def read_inject(data: object, base: dict[str, JSON], found: problems.Problems) -> Inject:
    """The `inject` of a plan: its paths may be new ones, and take nothing from the model but single values."""
    place: problems.Place = ("inject",)
    spec = found.mapping(data, place)
    if spec is None:
        return Inject()
    found.keys(spec, place, ("seed", "simulation_id"))
    into: dict[str, paths.Path | None] = {}
    for key in ("seed", "simulation_id"):
        text = found.text(spec[key], (*place, key)) if key in spec else None
        if text is not None:
            path = axes.find(base, paths.split(text), True, found, (*place, key))
            if path is not None:
                _keep_others(base, path, (*place, key), found)
            into[key] = path
    seed, simulation_id = into.get("seed"), into.get("simulation_id")
    if seed is not None and simulation_id is not None and paths.overlapping(seed, simulation_id):
        found.add("overlapping_paths", (*place, "simulation_id"), "this would be written over the seed")
    return Inject(seed, simulation_id)


def _keep_others(base: dict[str, JSON], path: paths.Path, place: problems.Place, found: problems.Problems) -> None:
    """Refuses to put an injected value in the place of more than it names."""
    for length in range(1, len(path)):
        above = paths.get(base, path[:length])
        if not isinstance(above, dict | list) and above is not None:
            message = f"{problems.dotted(path[:length])!r} is {problems.kind(above)}, and would give way to a mapping"
            found.add("bad_path", place, f"{message}: choose a path of its own, such as run.seed")
            return
    there = paths.get(base, path)
    if isinstance(there, dict | list):
        message = f"this is {problems.kind(there)} in the base configuration, and would be lost"
        found.add("bad_path", place, f"{message}: choose a path inside it, or one of its own, such as run.seed")


def read_metrics(data: object, found: problems.Problems) -> tuple[TrackedMetric, ...]:
    """The `metrics_to_track` of a plan, in its order."""
    place: problems.Place = ("metrics_to_track",)
    metrics: dict[str, TrackedMetric] = {}
    for index, item in enumerate(found.sequence(data, place) or ()):
        here = (*place, index)
        metric = _metric(item, here, found)
        if metric is not None and metric.name in metrics:
            found.add("duplicate", here, f"metric {metric.name!r} is tracked twice")
        elif metric is not None:
            metrics[metric.name] = metric
    return tuple(metrics.values())


def _metric(item: object, place: problems.Place, found: problems.Problems) -> TrackedMetric | None:
    if not isinstance(item, Mapping):
        name = found.text(item, place, METRIC, METRIC_FORM)
        return None if name is None else TrackedMetric(name)
    found.keys(item, place, ("name", "goal", "from", "timeout_seconds"))
    source: str | None = "run"
    timeout: float | None = DEFAULT_METRIC_TIMEOUT_SECONDS
    if "from" in item:
        source = found.choice(item["from"], (*place, "from"), ("run", "event"))
    if "timeout_seconds" in item:
        timeout = _seconds(item["timeout_seconds"], (*place, "timeout_seconds"), found)
        if source == "run":
            message = "'timeout_seconds' is how long to wait for a metric 'from: event'; this one comes with its run"
            found.add("contradiction", (*place, "timeout_seconds"), message, on_key=True)
    if "name" not in item:
        found.add("missing_key", place, "a tracked metric needs a 'name'", on_key=True)
        return None
    name = found.text(item["name"], (*place, "name"), METRIC, METRIC_FORM)
    goal = None
    if "goal" in item:
        goal = found.choice(item["goal"], (*place, "goal"), ("minimize", "maximize"))
    if name is None or source is None or timeout is None:
        return None
    return TrackedMetric(name, cast("Goal | None", goal), cast("Source", source), timeout)
