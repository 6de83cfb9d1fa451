"""Plans of a few letters, and what becomes of them."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import plan, space

JSON = canonical.JSON
BASE: dict[str, JSON] = {"a": 0, "b": 0, "c": 0, "d": 0, "e": 0, "f": {"g": 0}, "on": False, "list": [1, 2]}


def parsed(text: str, base: dict[str, JSON] = BASE) -> plan.Plan:
    """The plan of this text on this base configuration."""
    document = yaml_reader.read_plan(text.encode())
    return plan.parse({"experiment_name": "x", **document.data}, base)


def params(text: str) -> list[dict[str, JSON]]:
    """The parameters of its points, in their order."""
    return [point.params for point in space.points(parsed(text))]


def refused(text: str) -> list[tuple[str, str]]:
    """What is found wrong with a plan that could be read, when all of it is tried."""
    with pytest.raises(errors.PlanRejected) as found:
        space.exact_count(parsed(text))
    return [(problem.code, problem.message) for problem in found.value.problems]
