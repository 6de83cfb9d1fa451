"""`ems.result.v1` and the rows of exports, both made from one table.

To add a field, add it to FIELDS and to `result`: the JSON Schema and the columns of every export follow.
"""

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ems_worker.core import ids
from ems_worker.core.documents import documents, shapes, titles
from ems_worker.core.documents.documents import Document
from ems_worker.core.documents.shapes import Schema
from ems_worker.core.lifecycle import tally
from ems_worker.core.lifecycle.run import ErrorKind, Run, Waiting
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import JobRow

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_COMPLETED, _MISSING = RunState.COMPLETED, Waiting.MISSING


@dataclass(frozen=True, slots=True)
class Field:
    """One key of a result, with its schema, and how an export has it.

    A plain field is one column. With `prefix` each entry of its mapping is a column `{prefix}.{key}`; with `parts` each
    of these keys of its object is a column `{name}_{part}`.
    """

    name: str
    schema: Schema
    prefix: str | None = None
    parts: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of a field that isn't a mapping: those of a mapping depend on the experiment."""
        return tuple(f"{self.name}_{part}" for part in self.parts) or (self.name,)


def _error(run: Run) -> Document | None:
    if run.waiting is _MISSING:
        return {"kind": ErrorKind.METRICS_MISSING, "message": "metrics that the plan tracks did not come in time"}
    if run.error_kind is None and run.error_message is None:
        return None
    return {"kind": run.error_kind, "message": run.error_message}


# In the order of the columns.
FIELDS: Final = (
    Field("experiment_id", shapes.EXPERIMENT_ID),
    Field(
        "simulation_id",
        shapes.SIMULATION_ID,
    ),
    Field("point", shapes.POINT),
    Field("replicate", shapes.count("which repetition of the point")),
    Field("attempt", shapes.count("which attempt at the job", 1)),
    Field("run_id_suffix", shapes.RUN_ID_SUFFIX),
    Field("seed", shapes.SEED),
    Field(
        "state",
        shapes.choice("the job's state", [name for name in Bucket if name is not Bucket.INFEASIBLE]),
    ),
    Field(
        "params",
        shapes.PARAMS,
        prefix="param",
    ),
    Field(
        "metrics",
        shapes.maybe(shapes.by_name("as reported; null: not finite", shapes.maybe(shapes.number("a value")))),
        prefix="metric",
    ),
    Field("labels", shapes.LABELS, prefix="label"),
    Field(
        "artifacts",
        shapes.by_name("files that the run produced", shapes.text("a URI")),
        prefix="artifact",
    ),
    Field(
        "error",
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
        shapes.maybe(shapes.time("when it was submitted to the orchestrator")),
    ),
    Field("started_at", shapes.maybe(shapes.time("when it began"))),
    Field(
        "finished_at",
        shapes.maybe(shapes.time("when it ended")),
    ),
    Field(
        "model_version",
        shapes.maybe(shapes.text("version of the model that computed it")),
    ),
    Field("host", shapes.maybe(shapes.text("the machine that the run is or was on"))),
    Field("slot", shapes.maybe(shapes.text("the slot of that machine"))),
    Field("step", shapes.maybe(shapes.number("how far the run was when it last reported"))),
    Field("total", shapes.maybe(shapes.number("how far it has to go, in the same unit"))),
    Field("excluded", shapes.EXCLUDED),
    Field("config_sha", shapes.maybe(shapes.CONFIG_SHA)),
    Field("job_revision", shapes.count("how many times the job has ended so far")),
    Field(
        "seq",
        shapes.maybe(shapes.count("position of the job's end among those of the experiment", 1)),
    ),
)

SCHEMA: Final = shapes.document(
    titles.RESULT,
    "A job, by the attempt that stands for it. The highest job_revision is the valid one.",
    {field.name: field.schema for field in FIELDS},
    shapes.SHORTENED,
)

_PREFIXES: Final[Mapping[str, str]] = MappingProxyType(
    {field.name: field.prefix for field in FIELDS if field.prefix is not None}
)
_PARTS: Final = tuple((field.name, part, f"{field.name}_{part}") for field in FIELDS for part in field.parts)
_NOT_PLAIN: Final = frozenset({"schema", *_PREFIXES, *(name for name, _, _ in _PARTS)})


def result(experiment_id: str, row: JobRow, *, whole: bool = False) -> Document:
    """`ems.result.v1`: a job by the attempt that stands for it. Long parameter values are shortened unless `whole`."""
    point, run = row.point, row.run
    # One expression, because there may be thousands of results a second.
    return {
        "schema": titles.RESULT,
        "experiment_id": experiment_id,
        "simulation_id": ids.simulation_id(experiment_id, run.point, run.replicate, run.attempt),
        "point": point.point,
        "replicate": run.replicate,
        "attempt": run.attempt,
        "run_id_suffix": point.run_id_suffix,
        "seed": run.seed,
        "state": tally.job_state(run),
        "params": dict(point.params) if whole else documents.shortened(point.params),
        "metrics": run.metrics,
        "labels": point.labels or {},
        "artifacts": run.artifacts or {},
        "error": None if run.state is _COMPLETED and run.waiting is None else _error(run),
        "submitted_at": documents.timestamp(run.submitted_ms),
        "started_at": documents.timestamp(run.started_ms),
        "finished_at": documents.timestamp(run.finished_ms),
        "model_version": run.model_version,
        "host": run.host,
        "slot": run.slot,
        "step": run.step,
        "total": run.total,
        "excluded": run.excluded,
        "config_sha": run.config_sha,
        "job_revision": run.job_revision,
        "seq": run.ended_seq,
    }


def line(result: Document) -> Document:
    """A result as a flat row for tables. Keys that this version doesn't know are kept as they are."""
    flat = dict(result)
    for name in _NOT_PLAIN:
        flat.pop(name, None)
    for name, part, column in _PARTS:
        flat[column] = None if (mapping := result[name]) is None else mapping.get(part)
    for name, prefix in _PREFIXES.items():
        if mapping := result[name]:
            flat.update(zip(_prefixed(prefix, tuple(mapping)), mapping.values(), strict=True))
    return flat


@functools.lru_cache(maxsize=64)
def _prefixed(prefix: str, names: tuple[str, ...]) -> tuple[str, ...]:
    """The columns for these names of a mapping. The jobs of an experiment mostly have the same."""
    return tuple(f"{prefix}.{name}" for name in names)


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
