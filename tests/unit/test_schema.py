"""The JSON Schema of plans, compared with the parser, the examples and the invalid plans."""

import json
import pathlib

import jsonschema
import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.language import axes, axis_kinds, schema
from ems_worker.core.points import plan

ROOT = pathlib.Path(__file__).parents[2]
VALIDATOR = jsonschema.Draft202012Validator(schema.PLAN)
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
INVALID = sorted(path for path in (ROOT / "tests/plans/invalid").iterdir() if path.suffix != ".expected")
# The codes of problems that a schema finds without the base configuration.
STRUCTURAL = {"unknown_key", "wrong_type", "bad_choice", "bad_format", "not_an_axis"}
# Only the base configuration tells the first two from nested paths; JSON Schema takes 5.0 for a whole number.
NOT_FOUND = {"axis_key.yaml", "range_list.yaml", "replicates_float.yaml"}


def test_the_schema_is_valid() -> None:
    """It satisfies the meta-schema of draft 2020-12."""
    jsonschema.Draft202012Validator.check_schema(schema.PLAN)
    assert schema.PLAN["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_the_published_file_is_the_schema() -> None:
    """docs/plan.schema.json, which editors read, has the text that `ems schema plan` prints."""
    published = (ROOT / "docs/plan.schema.json").read_text()
    assert published == json.dumps(schema.PLAN, indent=2) + "\n"


def test_the_schema_has_the_keys_of_the_parser() -> None:
    """The keys of plans and the keys of axes are the same in both."""
    assert set(schema.PLAN["properties"]) == {*plan.KEYS, *plan.IGNORED_KEYS}
    forms = [form["properties"] for form in schema.PLAN["$defs"]["axis"]["anyOf"]]
    assert {key for form in forms for key in form} == {*axes.KEYS}


@pytest.mark.parametrize("kind", axis_kinds.KINDS, ids=lambda kind: kind.key)
def test_every_form_of_an_axis_requires_the_key_of_its_kind(kind: axis_kinds.AxisKind) -> None:
    """The schema has each form with its keys and those of every axis, and no other keys are allowed."""
    forms = schema.PLAN["$defs"]["axis"]["anyOf"]
    for form in kind.forms:
        [described] = [each for each in forms if each["description"] == form.description]
        assert kind.key in described["required"]
        assert set(described["required"]) == {*form.keys}
        assert set(described["properties"]) == {*form.keys, *form.optional, *axes.COMMON_KEYS}
        assert described["additionalProperties"] is False


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
    """The schema and the parser accept it without warnings, and its first line names the schema to editors."""
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
def test_the_schema_rejects_plans_that_are_invalid_without_the_base(path: pathlib.Path) -> None:
    """An editor marks unknown keys, wrong types and values in a wrong format."""
    document = _plan(path)
    codes = {line.split()[0] for line in path.with_name(f"{path.name}.expected").read_text().splitlines()}
    if document is not None and codes & STRUCTURAL:
        assert VALIDATOR.is_valid(document.data) == (path.name in NOT_FOUND)
