"""docs/asyncapi.yaml is valid AsyncAPI 3.0 and describes the worker's streams, queries and documents."""

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pydantic
import pytest
import yaml

from ems_worker.adapters.jetstream import streams
from ems_worker.core.documents import schemas
from ems_worker.core.language import schema
from ems_worker.core.lifecycle.steering import SELECTING, Verb
from ems_worker.service import asked, plan_text, queries
from ems_worker.service.steering import control, remove, requests
from tests.support import other_languages

DOCS = Path(__file__).resolve().parents[2] / "docs"
API: dict[str, Any] = yaml.safe_load((DOCS / "asyncapi.yaml").read_text())
# The specification's own JSON Schema, as the AsyncAPI initiative publishes it.
SPECS = ("@asyncapi/specs", "6.11.1", "01af8744dc33c0c7eb2e908f6a955319ee58b70ecadc9387d1aeb16c0cd28928")
SCHEMA = "package/schemas/3.0.0-without-$id.json"
REQUESTS: dict[str, type[pydantic.BaseModel]] = {
    "listRequest": asked.ListRequest,
    "getRequest": asked.GetRequest,
    "pageRequest": asked.PageRequest,
    "jobsRequest": asked.JobsRequest,
    "resultsRequest": asked.ResultsRequest,
    "configRequest": asked.ConfigRequest,
    "planRequest": plan_text.PlanRequest,
    "removeRequest": remove.RemoveRequest,
    **{f"{verb}Request": model for verb, model in requests.MODELS.items()},
}


NOT_SELECTING = {f"{verb}Request" for verb in set(Verb) - SELECTING}


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    """A validator of AsyncAPI 3.0 documents."""
    with tarfile.open(other_languages.npm_package(*SPECS)) as archive:
        file = archive.extractfile(SCHEMA)
        assert file is not None
        return jsonschema.Draft7Validator(json.load(file))


def test_the_document_is_valid_asyncapi(validator: jsonschema.Draft7Validator) -> None:
    """It conforms to the schema of the specification."""
    assert [f"{list(error.absolute_path)}: {error.message}" for error in validator.iter_errors(API)] == []


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("channels", "statuses", {"adress": "x"}),
        ("operations", "publishStatus", {"action": "shout"}),
        ("info", "title", 1),
    ],
)
def test_an_invalid_document_is_detected(
    validator: jsonschema.Draft7Validator, part: str, key: str, value: object
) -> None:
    """A misspelt key, an unknown action and a title that is a number are all errors."""
    assert not validator.is_valid(API | {part: API[part] | {key: value}})


def references(part: Any) -> Iterator[str]:
    """Every $ref in a part of the document."""
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"]
        for inner in part.values():
            yield from references(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from references(inner)


def test_every_reference_can_be_resolved() -> None:
    """References lead into the document or to a published schema, and every published document is referenced."""
    files = set()
    for reference in references(API):
        file, _, path = reference.partition("#")
        if file:
            files.add((DOCS / file).resolve())
            continue
        found = API
        for step in path.removeprefix("/").split("/"):
            found = found[step]
    wanted = {(DOCS / "schemas" / f"{name}.json").resolve() for name in schemas.DOCUMENTS}
    assert wanted | {DOCS / "plan.schema.json"} == files
    assert json.loads((DOCS / "plan.schema.json").read_text()) == schema.PLAN


def addresses() -> set[str]:
    return {channel["address"] for channel in API["channels"].values() if channel["address"]}


def test_every_subject_is_a_channel() -> None:
    """Every subject of the streams has a channel, and no channel is unknown."""
    covered = set()
    for spec in streams.SPECS:
        for subject in spec.subjects:
            if subject.endswith(".>"):
                continue
            covered |= {one for one in addresses() if streams.covers(subject, one)}
            assert any(streams.covers(subject, one) for one in addresses()), subject
    assert {one for one in addresses() - covered if not one.startswith("ems.api.")} == set()


def test_every_query_and_change_is_a_channel() -> None:
    """The channels under `ems.api` are the verbs that the worker serves."""
    served = queries.Queries.handlers(_nobody(queries.Queries))
    changes = control.Control.handlers(_nobody(control.Control))
    served_too = {"remove"}
    assert {f"ems.api.{verb}" for verb in {*served, *changes, *served_too}} == {
        one for one in addresses() if ".api." in one
    }


def _nobody(kind: Any) -> Any:
    """An object that has methods and nothing else, which is enough to list its handlers."""
    return object.__new__(kind)


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_what_the_worker_reads(name: str) -> None:
    """Their schemas have the same keys as the worker's models, and the same required keys."""
    described = API["components"]["schemas"][name]
    model = REQUESTS[name].model_json_schema()
    # Every change has `where`, which the verbs that don't select jobs refuse.
    refused = {"where"} if name in NOT_SELECTING else set()
    assert set(described["properties"]) == set(model["properties"]) - refused
    assert sorted(described.get("required", [])) == sorted(model.get("required", []))
    assert described["additionalProperties"] is False
