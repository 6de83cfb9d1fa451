"""Small plans written as text, and what parsing and expanding them results in."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled

JSON = canonical.JSON
BASE: dict[str, JSON] = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": {"g": 0}, "on": False, "list": [1, 2]}

# Parsing counts nothing: all is left for later.
UNCOUNTED = WorkLimits(early_steps=0)


def parsed(text: str, base: dict[str, JSON] = BASE, limits: WorkLimits | None = None) -> plan.Plan:
    """The plan of this text with this base configuration."""
    document = yaml_reader.read_plan(text.encode())
    return plan.parse({"experiment_name": "x", **document.data}, base, limits)


def params(text: str) -> list[dict[str, JSON]]:
    """The parameters of the plan's points, in order."""
    return [point.params for point in space.points(parsed(text))]


def refused(text: str, limits: WorkLimits | None = None) -> list[tuple[str, str]]:
    """The code and message of each problem of a plan, those that counting its points finds included."""
    with pytest.raises(errors.PlanRejected) as rejected:
        settled.size(parsed(text, limits=limits))
    return [(problem.code, problem.message) for problem in rejected.value.problems]
