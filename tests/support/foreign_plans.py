"""Plans in the words of other tools, and what is said about them."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import plan

BASE = {
    "fish": {"count": 10, "speed": 1.5, "kind": "cod"},
    "growth": 0.1,
    "rate": 0.1,
    "optimizer": {"learning_rate": 0.1},
    "species": [{"speed": 1.0}, {"speed": 2.0}],
}


def parsed(text: str) -> plan.Plan:
    """A plan that has an id and a base configuration."""
    document = yaml_reader.read_plan(f"{text}\nexperiment_id: reef\n".encode())
    return plan.parse({"base_config": BASE, **document.data})


def messages(text: str) -> list[str]:
    """What is said about a plan."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text)
    return [problem.message for problem in rejected.value.problems]
