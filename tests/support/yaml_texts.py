"""What reading a YAML or JSON text reports."""

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader

Problem = tuple[str, int | None, int | None]


def refused(text: str | bytes, *, base: bool = False) -> list[Problem]:
    """The code, line and column of each problem of a text."""
    data = text.encode() if isinstance(text, str) else text
    with pytest.raises(errors.PlanRejected) as rejected:
        (yaml_reader.read_base if base else yaml_reader.read_plan)(data)
    return [(problem.code, problem.line, problem.column) for problem in rejected.value.problems]
