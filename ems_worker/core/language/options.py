"""How a plan's points are run and judged: limits, when a round settles, seeds."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Final, Literal, cast

from ems_worker.core import canonical, seeds
from ems_worker.core.language import checks, foreign, quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

ERROR_KINDS: Final = ("infrastructure", "timeout", "lost", "simulation", "infeasible", "stopped")
DEFAULT_RETRY_ON: Final = frozenset({"infrastructure", "timeout", "lost"})
MAX_PRIORITY: Final = 100
_PERCENT: Final = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s?%")
_MAX_COUNT: Final = 2**52
Stragglers = Literal["cancel", "keep"]
STRAGGLERS: Final = ("cancel", "keep")
# Limits that plans don't have yet.
_LATER: Final = ("budget", "canary")


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
class Quorum:
    """How many jobs of a round have to end before it settles: either a count or a percentage of all jobs."""

    count: int | None = None
    percent: Fraction | None = None

    def needed(self, jobs: int) -> int:
        """The number of ended jobs at which an experiment with this number of jobs has its quorum; at most all."""
        if self.count is not None:
            return min(self.count, jobs)
        assert self.percent is not None
        return math.ceil(jobs * self.percent / 100)


@dataclass(frozen=True, slots=True)
class Settle:
    """When a round settles: `grace_seconds` after its quorum has ended, and at the latest with its last job.

    `stragglers`: whether jobs that are open then are cancelled or go on.
    """

    quorum: Quorum = field(default_factory=lambda: Quorum(percent=Fraction(100)))
    grace_seconds: float = 0.0
    stragglers: Stragglers = "keep"


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
    known = (*CHANGEABLE, "run_timeout", "run_timeout_seconds", "max_attempts", "retry_on", "fail_fast")
    problems.keys(spec, location, (*known, *_LATER), foreign.LIMITS)
    _refuse_later(spec, location, problems)
    default = ExperimentLimits()
    timeout = checks.duration(spec, "run_timeout", location, problems)
    max_attempts = retry_on = fail_fast = None
    if "max_attempts" in spec:
        max_attempts = problems.integer(spec["max_attempts"], (*location, "max_attempts"), 1, 1000)
    if "retry_on" in spec:
        kinds = problems.sequence(spec["retry_on"], (*location, "retry_on")) or ()
        retry_on = [
            problems.choice(kind, (*location, "retry_on", index), ERROR_KINDS) for index, kind in enumerate(kinds)
        ]
    if "fail_fast" in spec:
        fail_fast = problems.boolean(spec["fail_fast"], (*location, "fail_fast"))
    changeable = {key: _changeable(key, spec[key], location, problems) for key in CHANGEABLE if key in spec}
    return ExperimentLimits(
        run_timeout_seconds=timeout,
        max_attempts=max_attempts or default.max_attempts,
        retry_on=default.retry_on if retry_on is None else frozenset(filter(None, retry_on)),
        fail_fast=bool(fail_fast),
        **{key: value for key, value in changeable.items() if value is not None},
    )


def _refuse_later(spec: Mapping[str, object], location: Location, problems: Problems) -> None:
    for key in _LATER:
        if key in spec:
            problems.add("not_supported_yet", (*location, key), f"{key!r} is not supported yet", on_key=True)


def _max_concurrent(value: object, location: Location, problems: Problems) -> int | None:
    return problems.integer(value, location, 1, 1_000_000)


def _priority(value: object, location: Location, problems: Problems) -> int | None:
    return problems.integer(value, location, -MAX_PRIORITY, MAX_PRIORITY)


def _max_failed(value: object, location: Location, problems: Problems) -> MaxFailed | None:
    given = _count_or_percentage(value, location, problems, least=0)
    return None if given is None else MaxFailed(*given)


# The limits that `set` changes while an experiment runs; each is written as in a plan.
CHANGEABLE: Final[dict[str, Callable[[object, Location, Problems], Any]]] = {
    "max_concurrent": _max_concurrent,
    "max_failed": _max_failed,
    "priority": _priority,
}


def _changeable(key: str, value: object, location: Location, problems: Problems) -> Any:
    return CHANGEABLE[key](value, (*location, key), problems)


def parse_overrides(data: Mapping[str, object], problems: Problems) -> dict[str, JSON]:
    """The limits that a `set` changes, as it wrote them; null returns to the plan's limit. Reports what is wrong."""
    problems.keys(data, (), (*CHANGEABLE, *_LATER))
    _refuse_later(data, (), problems)
    if not data:
        problems.add("missing_key", (), f"'set' needs at least one of {', '.join(CHANGEABLE)}")
    valid: dict[str, JSON] = {}
    for key in CHANGEABLE:
        if key in data and (data[key] is None or _changeable(key, data[key], (), problems) is not None):
            valid[key] = cast("JSON", data[key])
    return valid


def merged(overrides: Mapping[str, JSON], changes: Mapping[str, JSON]) -> dict[str, JSON]:
    """The overrides of an experiment after one more `set`."""
    return {key: value for key, value in {**overrides, **changes}.items() if value is not None}


def overridden(limits: ExperimentLimits, overrides: Mapping[str, JSON]) -> ExperimentLimits:
    """The limits of an experiment: those of its plan, with these in their place; `parse_overrides` accepted them."""
    problems = Problems()
    values = {key: _changeable(key, value, (), problems) for key, value in merged(overrides, {}).items()}
    assert not len(problems), problems.collected()
    return replace(limits, **values)


def parse_settle(data: object, problems: Problems) -> Settle:
    """The `settle` of a plan."""
    location: Location = ("settle",)
    known = ("quorum", "grace", "grace_seconds", "stragglers")
    fields = checks.Fields.read(data, location, problems, required=(), optional=known, remedies=foreign.SETTLE)
    if fields is None:
        return Settle()
    values: dict[str, Any] = {}
    if fields.has("quorum"):
        quorum = _count_or_percentage(fields.mapping["quorum"], fields.at("quorum"), problems, least=1)
        values["quorum"] = None if quorum is None else Quorum(*quorum)
    values["grace_seconds"] = checks.duration(fields.mapping, "grace", location, problems, zero=True)
    if fields.has("stragglers"):
        values["stragglers"] = problems.choice(fields.mapping["stragglers"], fields.at("stragglers"), STRAGGLERS)
    settle = Settle(**{key: value for key, value in values.items() if value is not None})
    if settle.quorum.percent == 100 and (settle.grace_seconds or fields.has("stragglers")):
        message = "a round settles with its last job unless 'quorum' is smaller, so that there are no stragglers"
        problems.warn("no_stragglers", location, message)
    return settle


def check_quorum(settle: Settle, jobs: int, problems: Problems) -> None:
    """Warns about a quorum that the plan's jobs can't reach."""
    count = settle.quorum.count
    if count is not None and count > jobs:
        message = f"the plan has only {jobs:,} jobs: the round settles with the last one of them"
        problems.warn("quorum_above_jobs", ("settle", "quorum"), message)


def _count_or_percentage(
    value: object, location: Location, problems: Problems, *, least: int
) -> tuple[int | None, Fraction | None] | None:
    """A number of jobs, from `least`, or a percentage of them, which is above 0 if `least` is."""
    if isinstance(value, str | float):
        percent = _PERCENT.fullmatch(str(value))
        if percent and Fraction(percent[1]) <= 100:
            if least == 0 or Fraction(percent[1]) > 0:
                return None, Fraction(percent[1])
            problems.add("out_of_range", location, f"{quotes.brief(value)} is not greater than 0")
            return None
        example = f"{value:.0%}" if isinstance(value, float) and 0 < value <= 1 else "5%"
        message = f"{quotes.brief(value)} is neither a number of jobs nor a percentage like '{example}'"
        problems.add("bad_format" if isinstance(value, str) else "wrong_type", location, message)
        return None
    count = problems.integer(value, location, least, _MAX_COUNT)
    return None if count is None else (count, None)


def parse_seeds(data: object, replicates: int, problems: Problems) -> Seeds:
    """The `seeds` of a plan with this number of replicates."""
    location: Location = ("seeds",)
    listed = f"{{policy: list, values: {quotes.brief(data)}}}" if isinstance(data, list) else "{root: 0}"
    form = f"{{root: {quotes.brief(data)}}}" if isinstance(data, int) else listed
    spec = problems.mapping(data, location, f"write {form}")
    if spec is None:
        return Seeds()
    problems.keys(spec, location, ("root", "policy", "values"), foreign.SEEDS)
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
        problems.add(
            "unknown_key", (*location, "values"), "'values' are for policy 'list': add policy: list", on_key=True
        )
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
