"""The JSON Schemas (2020-12) of the documents that leave the worker: what a reader may rely on.

Every key that is described is there, null where nothing can be said; readers must tolerate further ones. The words are
the code's own, and the tests hold real documents against this.
"""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ems_worker.core import ids
from ems_worker.core.documents import titles
from ems_worker.core.language import schema
from ems_worker.core.lifecycle.experiment import Bucket, ExperimentState
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.records import PlanDecision

Schema = dict[str, Any]

_SHA: Final = "^[0-9a-f]{64}$"


def _object(description: str, properties: Schema, optional: Schema | None = None) -> Schema:
    return {
        "type": "object",
        "description": description,
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
    }


def _text(description: str, pattern: str | None = None) -> Schema:
    made: Schema = {"type": "string", "description": description}
    return made | ({"pattern": pattern} if pattern else {})


def _word(description: str, words: Iterable[str]) -> Schema:
    return {"type": "string", "description": description, "enum": [str(word) for word in words]}


def _count(description: str, least: int = 0) -> Schema:
    return {"type": "integer", "description": description, "minimum": least}


def _number(description: str, **bounds: float) -> Schema:
    return {"type": "number", "description": description, **bounds}


def _list(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items}


def _by_name(description: str, values: Schema) -> Schema:
    return {"type": "object", "description": description, "additionalProperties": values}


def _time(description: str) -> Schema:
    return _text(f"{description}, UTC", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def _maybe(one: Schema) -> Schema:
    """The same, or null."""
    kind = one["type"]
    made = {**one, "type": [kind, "null"]}
    return made | ({"enum": [*one["enum"], None]} if "enum" in one else {})


def _document(name: str, description: str, properties: Schema, optional: Schema | None = None) -> Schema:
    head: Schema = {"schema": {"const": name, "description": "what this is"}}
    return {"$schema": schema.URL, "title": name, **_object(description, {**head, **properties}, optional)}


def _page(name: str, description: str, key: str, items: Schema, position: Schema) -> Schema:
    """A reply that carries other documents; theirs is told once, under $defs."""
    item = {word: part for word, part in items.items() if word not in ("$schema", "$defs")}
    whole = _document(name, description, {key: _list("the documents", {"$ref": "#/$defs/item"}), **position})
    return {**whole, "$defs": {**items.get("$defs", {}), "item": item}}


_EXPERIMENT: Final = _text("the experiment's id", f"^(?:{ids.EXPERIMENT_ID.pattern})$")
_RUN: Final = _text("the run's id: experiment, point, replicate, attempt", r"^.+-p\d{6,}-r\d{3,}-a\d+$")
_SHORTENED: Final[Schema] = {
    "shortened": _list("fields that had to be cut, or it would be too large", _text("a field"))
}
_PLAN_SHA: Final = _text("SHA-256 of the plan's canonical JSON", _SHA)
_CONFIG_SHA: Final = _text("SHA-256 of the run's configuration and seed, in canonical JSON", _SHA)
_CURSOR: Final[Schema] = {"cursor": _maybe(_text("asks for the next page; null: there is none"))}
_SEED: Final = _count("the random seed")

_PROBLEM: Final = _object(
    "what is wrong, and where",
    {
        "code": _text("a stable name for machines", "^[a-z0-9_]+$"),
        "path": _text("the dotted place in the plan; empty: the whole plan"),
        "line": _maybe(_count("of the plan as sent", 1)),
        "column": _maybe(_count("of the plan as sent", 1)),
        "message": _text("what is wrong, and the remedy"),
    },
    {"suggestion": _text("what was probably meant")},
)
_ESTIMATE: Final = _object(
    "how long the plan would take, from earlier runs of the same model; only in answers of validate",
    {
        "seconds": _number("from the first start to the last end, if nothing else runs", minimum=0),
        "mean_run_seconds": _number("mean duration of those runs", minimum=0),
        "runs": _count("how many runs that is known from", 1),
        "slots": _count("runs at once", 1),
    },
)
DECISION: Final = _document(
    titles.DECISION,
    "What became of a plan.",
    {
        "decision": _word("accepted; duplicate: accepted before; rejected: see errors", PlanDecision),
        "experiment_id": _maybe(_EXPERIMENT),
        "points": _maybe(_count("points of the experiment")),
        "jobs": _maybe(_count("points times replicates")),
        "plan_sha": _maybe(_PLAN_SHA),
        "errors": _list("everything that is wrong; empty unless rejected", _PROBLEM),
        "warnings": _list("what is probably not meant", _PROBLEM),
        "submission": _maybe(
            _object(
                "the stored message, as the publisher's PubAck named it; null where the plan was only validated",
                {"stream": _text("its stream"), "seq": _count("its sequence in the stream", 1)},
            )
        ),
    },
    {"estimate": _maybe(_ESTIMATE), **_SHORTENED},
)

_AGGREGATE: Final = _object(
    "one metric over completed jobs",
    {
        "n": _count("jobs that have it"),
        "mean": _maybe(_number("null where n is 0")),
        "std": _maybe(_number("of the sample (n - 1); null where n is below 2", minimum=0)),
        "min": _maybe(_number("the least value")),
        "max": _maybe(_number("the largest value")),
        "missing": _count("completed jobs that lack it"),
    },
)
_METRICS: Final = _by_name("the tracked metrics", _AGGREGATE)
_COUNTS: Final = _object("jobs by state", {name.value: _count(f"jobs {name.value}") for name in Bucket})
_PARAMS: Final = _by_name(
    "parameters by their name or dotted path; a value over 4 KB of JSON is {sha256, bytes}",
    {"description": "any JSON value"},
)
_GOAL: Final = _word("which values are better", ("minimize", "maximize"))
_BEST: Final = _object(
    "the point with the best mean of the first metric that has a goal",
    {
        "point": _count("its number"),
        "params": _PARAMS,
        "metric": _text("the metric that ranks"),
        "goal": _GOAL,
        "mean": _number("its mean"),
        "std": _maybe(_number("its deviation", minimum=0)),
        "n": _count("jobs behind it", 1),
    },
)
STATUS: Final = _document(
    titles.STATUS,
    "How an experiment goes. The highest revision stands.",
    {
        "experiment_id": _EXPERIMENT,
        "experiment_name": _text("its name"),
        "group": _maybe(_text("the study that it belongs to")),
        "tags": _list("words of its author", _text("a word")),
        "state": _word("completed, failed and cancelled are ends", ExperimentState),
        "round": _count("1, and one more each time it is opened again", 1),
        "revision": _count("readers drop lower ones"),
        "counts": _COUNTS,
        "total": _count("all jobs"),
        "progress": _number("ended jobs of all", minimum=0, maximum=1),
        "throughput": _number("jobs ended a second, of late", minimum=0),
        "eta_seconds": _maybe(_number("until the last job ends, at that rate", minimum=0)),
        "created_at": _time("when its plan was accepted"),
        "started_at": _maybe(_time("when it began")),
        "finished_at": _maybe(_time("when it ended")),
        "updated_at": _time("when this was composed"),
        "worker_id": _text("the worker that says so"),
        "metrics": _METRICS,
        "best": _maybe(_BEST),
        "reason": _maybe(_text("why it is in this state, or why nothing of it is started")),
    },
    {
        "description": _maybe(_text("its author's words; this and the next only in answers of get")),
        "parameters": _by_name("the dotted path of each parameter's name", _text("a dotted path")),
        "plan_sha": _PLAN_SHA,
        "points": _count("its points", 1),
        "replicates": _count("replicates of each point", 1),
        **_SHORTENED,
    },
)

_POINT_FIELDS: Final[Schema] = {
    "point": _count("its number"),
    "run_id_suffix": _maybe(_text("the plan's own name of the point")),
    "labels": _by_name("the plan's labels", _text("a short text")),
    "params": _PARAMS,
}
POINT: Final = _document(
    titles.POINT,
    "A point: all replicates of one combination of parameters. The highest revision stands.",
    {
        "experiment_id": _EXPERIMENT,
        **_POINT_FIELDS,
        "counts": _COUNTS,
        "metrics": _METRICS,
        "ended": {"type": "boolean", "description": "whether all of its jobs have"},
        "revision": _count("position of its last end; 0 while one is open"),
    },
    _SHORTENED,
)
RESULT: Final = _document(
    titles.RESULT,
    "A job, by the attempt that stands for it. The highest job_revision stands.",
    {
        "experiment_id": _EXPERIMENT,
        "simulation_id": _RUN,
        "replicate": _count("which repetition of the point"),
        "attempt": _count("which try", 1),
        **_POINT_FIELDS,
        "seed": _SEED,
        "state": _word("of the job", [name for name in Bucket if name is not Bucket.INFEASIBLE]),
        "metrics": _maybe(_by_name("as they came; null: not finite", _maybe(_number("a value")))),
        "artifacts": _by_name("what the run left behind", _text("a URI")),
        "error": _maybe(
            _object(
                "why it did not complete",
                {"kind": _maybe(_word("whose fault it was", ErrorKind)), "message": _maybe(_text("in words"))},
            )
        ),
        "config_sha": _maybe(_CONFIG_SHA),
        "model_version": _maybe(_text("of the model that computed it")),
        "submitted_at": _maybe(_time("when the orchestrator had it")),
        "started_at": _maybe(_time("when it began")),
        "finished_at": _maybe(_time("when it ended")),
        "job_revision": _count("one more each time that the job ends"),
        "seq": _maybe(_count("position of its end in the experiment", 1)),
    },
    _SHORTENED,
)

_MORE: Final[Schema] = {
    "after_seq": _count("the position of the last one; asks for the next page"),
    "more": {"type": "boolean", "description": "whether there may be another page"},
}
CONFIG: Final = _document(
    titles.CONFIG,
    "A part of the configuration of a run.",
    {
        "simulation_id": _RUN,
        "seed": _SEED,
        "config_sha": _maybe(_CONFIG_SHA) | {"description": "as recorded at the submission; null before"},
        "computed_sha": _CONFIG_SHA | {"description": "of the configuration as it is made now"},
        "config": _text("YAML, from the offset that was asked for"),
        "next_offset": _maybe(_count("asks for the next part; null: this was the last", 1)),
    },
)
CHANGE: Final = _document(
    titles.CHANGE,
    "What became of a change that was asked for; the same request gets the same answer.",
    {
        "request_id": _text("the request's own id"),
        "experiment_id": _EXPERIMENT,
        "changed": {"type": "boolean", "description": "whether there was anything to do"},
        "state": _word("of the experiment after it", ExperimentState),
        "round": _count("of the experiment after it", 1),
    },
    {"retried": _count("jobs that are tried again, or wait again for metrics; answers of retry have it")},
)

DOCUMENTS: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        str(one["title"]): one
        for one in (
            DECISION,
            STATUS,
            RESULT,
            POINT,
            _page(titles.LIST, "A page of experiments, the newest first.", "experiments", STATUS, _CURSOR),
            _page(titles.JOBS, "A page of jobs, by point and replicate.", "jobs", RESULT, _CURSOR),
            _page(titles.POINTS, "A page of points, by number.", "points", POINT, _CURSOR),
            _page(titles.RESULTS, "A page of ended jobs, in the order of their ends.", "results", RESULT, _MORE),
            CONFIG,
            CHANGE,
        )
    }
)


def find(name: str) -> Schema | None:
    """By its whole name (`ems.status.v1`) or its word (`status`, `plan`); None: there is none."""
    if name == "plan":
        return schema.PLAN
    return DOCUMENTS.get(name) or DOCUMENTS.get(titles.full(name))


def names() -> list[str]:
    """All that `find` knows, by their words."""
    return ["plan", *(titles.word(name) for name in DOCUMENTS)]


def text(one: Schema) -> str:
    """A schema as it is printed and published."""
    return json.dumps(one, indent=2)
