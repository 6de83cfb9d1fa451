"""`--set PATH=VALUE` changes a plan before it is sent."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ems_worker.cli import exits, overrides, plans

PLAN = """\
name: x
base_config: {a: {b: 1, c: [1, {d: 2}]}, e.f: 1}
parameters:
  a.b: [1, 2]
replicates: 2
"""


def changed(*assignments: str, plan: str = PLAN, folder: Path = Path()) -> dict[str, Any]:
    """The plan's document with these values set."""
    file = overrides.applied(plans.PlanFile("x", plan.encode(), folder), assignments)
    document = yaml.safe_load(file.data)
    assert isinstance(document, dict)
    return document


@pytest.mark.parametrize(
    ("assignment", "path", "value"),
    [
        ("num_replicates_per_run=5", ["num_replicates_per_run"], 5),
        ("replicates=5", ["num_replicates_per_run"], 5),
        ("limits.max_failed=5%", ["limits", "max_failed"], "5%"),
        ("parameters.a.b=[3, 4]", ["parameter_space", "a.b"], [3, 4]),
        ("parameter_space.a.c=[[1]]", ["parameter_space", "a", "c"], [[1]]),
        ("base_config.a.b=7", ["base_config", "a", "b"], 7),
        ("a.b=text", ["base_config", "a", "b"], "text"),
        ("a.c.1.d=null", ["base_config", "a", "c", 1, "d"], None),
        ("e.f=2", ["base_config", "e.f"], 2),
        ("design.samples=20", ["design", "samples"], 20),
    ],
)
def test_a_value_is_set_where_its_path_leads(assignment: str, path: list[str | int], value: object) -> None:
    """In the plan if it begins with a key of plans, else in the base configuration."""
    found: Any = changed(assignment)
    for step in path:
        found = found[step]
    assert found == value


def test_later_values_win_and_nothing_else_changes() -> None:
    """Short names become long ones."""
    before = yaml.safe_load(PLAN)
    after = changed("a.b=2", "a.b=3")
    assert after.pop("base_config") == {**before["base_config"], "a": {**before["base_config"]["a"], "b": 3}}
    assert after == {"experiment_name": "x", "parameter_space": before["parameters"], "num_replicates_per_run": 2}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("replicates", "should be PATH=VALUE"),
        ("=1", "should be PATH=VALUE"),
        ("a.b=[", "the value can't be read"),
        ("a.z=1", r"have 'a\.z'"),
        ("a.c.5=1", r"have 'a\.c\.5'"),
        ("base_config.a.c.5=1", "has 2 elements"),
        ("zzz=1", "have 'zzz'"),
    ],
)
def test_a_path_that_leads_nowhere_is_refused(assignment: str, message: str) -> None:
    """A misspelt path would change nothing, silently."""
    with pytest.raises(exits.Misused, match=message):
        changed(assignment)


def test_new_paths_are_set_where_the_plan_allows_them() -> None:
    """As its axes may be new."""
    assert changed("z.y=1", plan=f"{PLAN}allow_new_paths: true\n")["base_config"]["z"] == {"y": 1}


def test_a_base_file_is_read_and_changed(tmp_path: Path) -> None:
    """The plan then has its content."""
    (tmp_path / "base.yaml").write_text("a: 1\n")
    plan = "name: x\nbase_config_file_path: base.yaml\nparameters: {a: [1]}\n"
    assert changed("a=2", plan=plan, folder=tmp_path)["base_config"] == {"a": 2}
    with pytest.raises(exits.Misused, match="names no base file"):
        changed("a=2", plan="name: x\n")


def test_a_plan_that_cannot_be_read_stays_as_it_is() -> None:
    """Its problems are reported later."""
    file = plans.PlanFile("x", b"a: [", Path())
    assert overrides.applied(file, ["a=1"]) is file
    assert overrides.applied(file, []) is file
