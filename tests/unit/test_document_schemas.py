"""Documents as the core builds them conform to the published schemas; tests/acceptance checks those of a worker."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker.core.documents import changes, documents, results, schemas
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.experiment import ExperimentState, PauseOwner
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.lifecycle.tally import Bucket, Tally
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import Change, Experiment, JobRow, NewExperiment, PlanDecision, PointRecord, PointRow
from ems_worker.errors import Problem
from tests.support import schema_checks

PUBLISHED = Path(__file__).resolve().parents[2] / "docs" / "schemas"
SHA = "0" * 64


@pytest.mark.parametrize("name", list(schemas.DOCUMENTS))
def test_each_schema_is_valid_and_published(name: str) -> None:
    """It conforms to draft 2020-12, and docs/schemas has it as `ems schema` prints it."""
    schema = schemas.DOCUMENTS[name]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert (PUBLISHED / f"{name}.json").read_text() == schemas.text(schema) + "\n"


def test_nothing_else_is_published() -> None:
    """The schema of a document that no longer exists leaves no file behind."""
    assert {path.stem for path in PUBLISHED.iterdir()} == set(schemas.DOCUMENTS)


def test_schemas_are_found_by_word_and_by_whole_name() -> None:
    """`status` and `ems.status.v1` are the same schema, `plan` is known, and an unknown name gives None."""
    assert schemas.find("status") is schemas.find("ems.status.v1") is schemas.STATUS
    assert schemas.find("nothing") is None
    found = [schemas.find(name) for name in schemas.names()]
    assert None not in found
    assert len(found) == 1 + len(schemas.DOCUMENTS)


def undescribed(schema: Any, path: str = "") -> list[str]:
    """The properties that have no description."""
    found = []
    for name, one in schema.get("properties", {}).items():
        found += [] if one.get("description") else [f"{path}.{name}"]
        found += undescribed(one, f"{path}.{name}") + undescribed(one.get("items", {}), f"{path}.{name}[]")
    return found


@pytest.mark.parametrize("name", list(schemas.DOCUMENTS))
def test_everything_is_described(name: str) -> None:
    """Every key of every schema has a description."""
    assert undescribed(schemas.DOCUMENTS[name], name) == []


def aggregate(values: list[float | None]) -> Aggregate:
    made = Aggregate()
    for value in values:
        made = made.add(value)
    return made


texts = st.none() | st.text(max_size=5)
times = st.none() | st.integers(0, 4 * 10**12)
numbers = st.none() | st.floats(0, 1e9)
seqs = st.none() | st.integers(1, 99)
values = st.none() | st.booleans() | st.integers() | st.lists(st.integers()) | st.sampled_from(["short", "x" * 5000])
labels = st.none() | st.dictionaries(st.text(max_size=5), st.text(max_size=5))
points = st.builds(PointRecord, st.integers(0, 10**6), st.dictionaries(st.text(max_size=5), values), texts, labels)
metrics = st.dictionaries(st.sampled_from("mk"), st.lists(st.none() | st.floats(-1e9, 1e9)).map(aggregate))
rows = st.builds(PointRow, points, st.dictionaries(st.sampled_from(Bucket), st.integers(0, 3)), metrics, seqs)
runs = st.builds(
    Run,
    *(st.integers(0, 99), st.integers(0, 99), st.integers(1, 9), st.integers(0, 2**63)),
    state=st.sampled_from(RunState),
    submitted_ms=times,
    started_ms=times,
    finished_ms=times,
    error_kind=st.none() | st.sampled_from(ErrorKind),
    error_message=texts,
    metrics=st.none()
    | st.dictionaries(st.text(max_size=5), st.none() | st.floats(allow_nan=False, allow_infinity=False)),
    artifacts=labels,
    waiting=st.none() | st.sampled_from(Waiting),
    model_version=texts,
    config_sha=st.none() | st.just(SHA),
    ended_seq=seqs,
    job_revision=st.integers(0, 9),
    host=texts,
    slot=texts,
    step=numbers,
    total=numbers,
    excluded=texts,
)
counts = st.dictionaries(st.sampled_from(Bucket), st.dictionaries(st.sampled_from(Bucket), st.integers(0, 9)))
requests = st.fixed_dictionaries(
    {}, optional={"reason": texts, "where": texts, "dry_run": st.booleans(), "plan": st.just("x" * 5000)}
)
some = st.none() | st.integers(0, 99)
all_changes = st.builds(
    Change,
    *(st.just("r-1"), st.just(1), st.sampled_from(Verb), requests.map(json.dumps), st.integers(0, 4 * 10**12)),
    *(st.sampled_from(ExperimentState), st.integers(1, 9), st.integers(0, 9)),
    changed=st.booleans(),
    judged=st.none() | st.just((3, 0)),
    counts=counts,
    added=some,
    withdrawn=some,
    unchanged=some,
    applied_ms=times,
)
SPEC = NewExperiment(
    *("e-1", "name", b"", b"", SHA, 1, 9, 9, 1000, "study", ("a tag",)),
    metrics=("m",),
    goal_metric="m",
    goal="minimize",
)
RECORD = Experiment(1, SPEC, ExperimentState.PAUSED, pauses=frozenset(PauseOwner))


def sent(document: documents.Document) -> Any:
    """The document as a reader receives it."""
    return json.loads(documents.encode(document))


@given(points, runs)
def test_every_result_conforms_to_its_schema(point: PointRecord, one: Run) -> None:
    """This holds whatever state its run is in."""
    assert schema_checks.check(sent(results.result("e-1", JobRow(point, one)))) == "ems.result.v1"


@given(rows)
def test_every_point_conforms_to_its_schema(row: PointRow) -> None:
    """This holds for points that have ended and for others."""
    assert schema_checks.check(sent(documents.point("e-1", row))) == "ems.point.v1"


@given(st.sampled_from(ExperimentState), texts, texts, times, times, rows, metrics, st.integers(0, 9))
def test_every_status_conforms_to_its_schema(
    state: ExperimentState,
    group: str | None,
    reason: str | None,
    started_ms: int | None,
    finished_ms: int | None,
    best: PointRow,
    tracked: dict[str, Aggregate],
    ended: int,
) -> None:
    """This holds with and without a pace, a best point and a reason."""
    spec = replace(SPEC, group=group)
    record = Experiment(1, spec, state, started_ms=started_ms, finished_ms=finished_ms, reason=reason)
    document = documents.status(
        record,
        Tally(9, {Bucket.COMPLETED: ended}, tracked),
        worker_id="worker",
        now_ms=2000,
        pace=documents.pace([(0.0, 0), (1.0, ended)], 9 - ended),
        best=best,
    )
    assert schema_checks.check(sent(document)) == "ems.status.v1"


@given(all_changes)
def test_every_change_conforms_to_its_schema(change: Change) -> None:
    """So does a group's reply, and the reply to `get`, which has the latest changes."""
    whole = changes.document("e-1", change)
    assert schema_checks.check(sent(whole)) == "ems.change.v1"
    for document in (changes.group([whole, whole]), changes.resumed_all("r-1", True)):
        assert schema_checks.check(sent(document)) == "ems.changes.v1"
    status = documents.status(RECORD, Tally(9), worker_id="w", now_ms=1, pace=documents.Pace())
    assert schema_checks.check(sent({**status, "changes": [changes.brief("e-1", change)]})) == "ems.status.v1"


@given(rows, metrics, st.booleans())
def test_every_settled_round_conforms_to_its_schema(
    best: PointRow, tracked: dict[str, Aggregate], quorum: bool
) -> None:
    """This holds for those that reached their quorum and for others."""
    document = documents.settled(RECORD, Tally(9, {}, tracked), by_quorum=quorum, ended_seq=3, now_ms=1, best=best)
    assert schema_checks.check(sent(document)) == "ems.settled.v1"


@pytest.mark.parametrize("decision", PlanDecision)
def test_every_decision_conforms_to_its_schema(decision: PlanDecision) -> None:
    """This holds for a decision with every field and for one with none."""
    wrong = [Problem("unknown_key", "a.b", "what", 1, 2, suggestion="c"), Problem("too_many_jobs", "", "what")]
    whole = documents.decision(
        decision, experiment_id="e", points=1, jobs=1, plan_sha=SHA, errors=wrong, warnings=wrong, stream="S", seq=1
    )
    assert (
        schema_checks.check(sent(whole)) == schema_checks.check(sent(documents.decision(decision))) == "ems.decision.v1"
    )


def test_a_document_that_does_not_conform_is_detected() -> None:
    """The check itself detects an additional key, a missing key and an unknown word."""
    good = documents.decision(PlanDecision.REJECTED)
    for bad in (good | {"more": 1}, good | {"decision": "perhaps"}, {k: v for k, v in good.items() if k != "jobs"}):
        with pytest.raises(jsonschema.ValidationError):
            schema_checks.check(bad)
