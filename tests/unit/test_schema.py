"""The JSON Schema of plans, held against the code, the examples and the corpus."""

import json
import pathlib

import jsonschema
import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import axes, axis_values, schema
from ems_worker.core.points import plan

ROOT = pathlib.Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(schema.PLAN)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
INVALID = sorted(path for path in (ROOT / "tests/plans/invalid").iterdir() if path.suffix != ".expected")
# What a schema without the base configuration can tell, at the least.
STRUCTURAL = {"unknown_key", "wrong_type", "bad_choice", "bad_format", "not_an_axis"}
# Only the base configuration tells these from nested paths; and 5.0 is a whole number to JSON Schema.
BEYOND_IT = {"axis_key.yaml", "range_list.yaml", "replicates_float.yaml"}


def test_the_schema_is_one() -> None:
    """By the rules of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema.PLAN)
    assert schema.PLAN["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_published_file_is_the_schema() -> None:
    """docs/plan.schema.json is what `ems schema plan` prints; editors read it from there."""
    published = (ROOT / "docs/plan.schema.json").read_text()
    assert published == json.dumps(schema.PLAN, indent=2) + "\n"


def test_the_schema_knows_what_the_code_knows() -> None:
    """The same keys, of plans, axes and distributions."""
    assert set(schema.PLAN["properties"]) == {*plan.KEYS, *plan.IGNORED}
    forms_of_axes = [form["properties"] for form in schema.PLAN["$defs"]["axis"]["anyOf"]]
    assert {key for form in forms_of_axes for key in form} == {*axes.KEYS}
    assert [form["dist"]["const"] for form in forms_of_axes if "dist" in form] == [*axis_values.DISTRIBUTIONS]


def _plan(path: pathlib.Path) -> yaml_reader.Document | None:
    try:
        document = yaml_reader.read_plan(path.read_bytes())
    except errors.PlanRejected:
        return None
    return (
        document if path.parent.name == "invalid" or {"experiment_name", "experiment_id"} & {*document.data} else None
    )


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_a_plan(path: pathlib.Path) -> None:
    """By schema and code; its first line tells editors the schema. Base configurations beside them are read by both."""
    document = _plan(path)
    if document is None:
        assert yaml_reader.read_base(path.read_bytes()).data
        return
    VALIDATOR.validate(document.data)
    reference = plan.base_reference(document.data)
    base = None if reference is None else yaml_reader.read_base((path.parent / reference).read_bytes()).data
    assert plan.parse(document.data, base).warnings == ()
    assert path.read_text().startswith("# yaml-language-server: $schema=../docs/plan.schema.json\n")


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.name)
def test_the_schema_refuses_what_can_be_told_without_the_base(path: pathlib.Path) -> None:
    """A wrong key, type, word or form is marked in the editor already."""
    document = _plan(path)
    codes = {line.split()[0] for line in path.with_name(f"{path.name}.expected").read_text().splitlines()}
    if document is not None and codes & STRUCTURAL:
        assert VALIDATOR.is_valid(document.data) == (path.name in BEYOND_IT)
