"""`ems.result.v1` and the rows of exports, both made from one table.

To add a field, add it to FIELDS: the document, its JSON Schema and the columns of every export follow.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from ems_worker.core import ids
from ems_worker.core.documents import documents, shapes, titles
from ems_worker.core.documents.documents import Document
from ems_worker.core.documents.shapes import Schema
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import Bucket
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.records import JobRow

# A field's value from the experiment's id and the job.
_Value = Callable[[str, JobRow], Any]


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a result, with its schema, and how an export has it.

    A plain field is one column. With `prefix` each entry of its mapping is a column `{prefix}.{key}`; with `parts` each
    of these keys of its object is a column `{name}_{part}`. `whole` is the value where nothing is to be shortened.
    """

    name: str
    value: _Value
    schema: Schema
    prefix: str | None = None
    parts: tuple[str, ...] = ()
    whole: _Value | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a field that isn't a mapping: those of a mapping depend on the experiment."""
        return tuple(f"{self.name}_{part}" for part in self.parts) or (self.name,)


def _error(run: Run) -> Document | None:
    if run.waiting is Waiting.MISSING:
        return {"kind": ErrorKind.METRICS_MISSING, "message": "metrics that the plan tracks did not come in time"}
    if run.error_kind is None and run.error_message is None:
        return None
    return {"kind": run.error_kind, "message": run.error_message}


# In the order of the columns.
FIELDS: Final = (
    Field("experiment_id", lambda experiment_id, _: experiment_id, shapes.EXPERIMENT_ID),
    Field(
        "simulation_id",
        lambda experiment_id, row: ids.simulation_id(experiment_id, row.run.point, row.run.replicate, row.run.attempt),
        shapes.SIMULATION_ID,
    ),
    Field("point", lambda _, row: row.point.point, shapes.POINT),
    Field("replicate", lambda _, row: row.run.replicate, shapes.count("which repetition of the point")),
    Field("attempt", lambda _, row: row.run.attempt, shapes.count("which attempt at the job", 1)),
    Field("run_id_suffix", lambda _, row: row.point.run_id_suffix, shapes.RUN_ID_SUFFIX),
    Field("seed", lambda _, row: row.run.seed, shapes.SEED),
    Field(
        "state",
        lambda _, row: experiment.job_state(row.run),
        shapes.choice("the job's state", [name for name in Bucket if name is not Bucket.INFEASIBLE]),
    ),
    Field(
        "params",
        lambda _, row: documents.shortened(row.point.params),
        shapes.PARAMS,
        prefix="param",
        whole=lambda _, row: dict(row.point.params),
    ),
    Field(
        "metrics",
        lambda _, row: None if row.run.metrics is None else dict(row.run.metrics),
        shapes.maybe(shapes.by_name("as reported; null: not finite", shapes.maybe(shapes.number("a value")))),
        prefix="metric",
    ),
    Field("labels", lambda _, row: dict(row.point.labels or {}), shapes.LABELS, prefix="label"),
    Field(
        "artifacts",
        lambda _, row: dict(row.run.artifacts or {}),
        shapes.by_name("files that the run produced", shapes.text("a URI")),
        prefix="artifact",
    ),
    Field(
        "error",
        lambda _, row: _error(row.run),
        shapes.maybe(
            shapes.mapping(
                "why the run did not complete",
                {
                    "kind": shapes.maybe(shapes.choice("the kind of failure", ErrorKind)),
                    "message": shapes.maybe(shapes.text("the failure's message")),
                },
            )
        ),
        parts=("kind", "message"),
    ),
    Field(
        "submitted_at",
        lambda _, row: documents.timestamp(row.run.submitted_ms),
        shapes.maybe(shapes.time("when it was submitted to the orchestrator")),
    ),
    Field(
        "started_at", lambda _, row: documents.timestamp(row.run.started_ms), shapes.maybe(shapes.time("when it began"))
    ),
    Field(
        "finished_at",
        lambda _, row: documents.timestamp(row.run.finished_ms),
        shapes.maybe(shapes.time("when it ended")),
    ),
    Field(
        "model_version",
        lambda _, row: row.run.model_version,
        shapes.maybe(shapes.text("version of the model that computed it")),
    ),
    Field("host", lambda _, row: row.run.host, shapes.maybe(shapes.text("the machine that the run is or was on"))),
    Field("slot", lambda _, row: row.run.slot, shapes.maybe(shapes.text("the slot of that machine"))),
    Field(
        "step", lambda _, row: row.run.step, shapes.maybe(shapes.number("how far the run was when it last reported"))
    ),
    Field("total", lambda _, row: row.run.total, shapes.maybe(shapes.number("how far it has to go, in the same unit"))),
    Field("excluded", lambda _, row: row.run.excluded, shapes.EXCLUDED),
    Field("config_sha", lambda _, row: row.run.config_sha, shapes.maybe(shapes.CONFIG_SHA)),
    Field("job_revision", lambda _, row: row.run.job_revision, shapes.count("how many times the job has ended so far")),
    Field(
        "seq",
        lambda _, row: row.run.ended_seq,
        shapes.maybe(shapes.count("position of the job's end among those of the experiment", 1)),
    ),
)

SCHEMA: Final = shapes.document(
    titles.RESULT,
    "A job, by the attempt that stands for it. The highest job_revision is the valid one.",
    {field.name: field.schema for field in FIELDS},
    shapes.SHORTENED,
)

_VALUES: Final = tuple((field.name, field.value) for field in FIELDS)
_WHOLE: Final = tuple((field.name, field.whole or field.value) for field in FIELDS)
_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {field.name: field.prefix for field in FIELDS if field.prefix is not None}
)
_PARTS: Final = tuple((field.name, part, f"{field.name}_{part}") for field in FIELDS for part in field.parts)
_NOT_PLAIN: Final = frozenset({"schema", *_PREFIXES, *(name for name, _, _ in _PARTS)})


def result(experiment_id: str, row: JobRow, *, whole: bool = False) -> Document:
    """`ems.result.v1`: a job by the attempt that stands for it. Long parameter values are shortened unless `whole`."""
    document: Document = {"schema": titles.RESULT}
    for name, value in _WHOLE if whole else _VALUES:
        document[name] = value(experiment_id, row)
    return document


def line(result: Document) -> Document:
    """A result as a flat row for tables. Keys that this version doesn't know are kept as they are."""
    flat: Document = {name: value for name, value in result.items() if name not in _NOT_PLAIN}
    for name, part, column in _PARTS:
        flat[column] = (result[name] or {}).get(part)
    for name, prefix in _PREFIXES.items():
        flat.update({f"{prefix}.{key}": value for key, value in (result[name] or {}).items()})
    return flat


def columns(names: Iterable[str]) -> list[str]:
    """The columns of a table, in order, whose rows have these names: those of each mapping as they come in `names`."""
    given = list(names)
    return [
        column
        for field in FIELDS
        for column in (
            field.columns if field.prefix is None else [name for name in given if name.startswith(f"{field.prefix}.")]
        )
    ]
