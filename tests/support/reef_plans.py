"""Plans for a base configuration with a mapping, lists, a key with dots and a null."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core import canonical
from ems_worker.core.points import plan

JSON = canonical.JSON
BASE: dict[str, JSON] = {
    "fish": {"count": 10, "speed": 1.5},
    "layers": [1, 2, {"deep": [5]}],
    "dotted.key": {"in.side": 1},
    "note": None,
}


def parsed(text: str, base: dict[str, JSON] = BASE) -> plan.Plan:
    """The plan of this text with this base configuration."""
    return plan.parse({"experiment_name": "reef", **yaml_reader.read_plan(text.encode()).data}, base)


def refused(text: str) -> list[tuple[str, str]]:
    """The code and path of each problem."""
    with pytest.raises(errors.PlanRejected) as rejected:
        parsed(text)
    return [(problem.code, problem.path) for problem in rejected.value.problems]
