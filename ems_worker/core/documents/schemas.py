"""The JSON Schemas (2020-12) of the documents that leave the worker: what a reader may rely on.

Every key that is described is there, null if it has no value; readers must tolerate further keys. Names of states and
kinds come from the code, and the tests hold real documents against the schemas. A result's schema is in results.py.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ems_worker.core.documents import change_schemas, headings, limits, results, shapes, titles
from ems_worker.core.documents.shapes import Schema
from ems_worker.core.language import schema
from ems_worker.core.lifecycle.experiment import CancelMode, ExperimentState, PauseOwner
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.records import PlanDecision

_CURSOR: Final[Schema] = {"cursor": shapes.maybe(shapes.text("send it to get the next page; null: this is the last"))}

_PROBLEM: Final = shapes.mapping(
    "a problem of the plan and where it is",
    {
        "code": shapes.text("a stable name for machines", "^[a-z0-9_]+$"),
        "path": shapes.text("dotted path in the plan, or in 'file'; empty: the whole plan"),
        "line": shapes.maybe(shapes.count("line of the plan as sent, or of 'file'", 1)),
        "column": shapes.maybe(shapes.count("column of the plan as sent, or of 'file'", 1)),
        "message": shapes.text("the problem and its remedy"),
    },
    {
        "file": shapes.text("the base file, if the problem is in it"),
        "suggestion": shapes.text("what the author probably meant"),
    },
)
_ESTIMATE: Final = shapes.mapping(
    "how long the plan would take, estimated from earlier runs of the same model; only in replies to validate",
    {
        "seconds": shapes.number("time from the first start to the last end if nothing else runs", minimum=0),
        "mean_run_seconds": shapes.number("mean duration of those runs", minimum=0),
        "runs": shapes.count("number of runs behind the estimate", 1),
        "slots": shapes.count("number of runs at once", 1),
    },
)
DECISION: Final = shapes.document(
    titles.DECISION,
    "The decision about a plan.",
    {
        "decision": shapes.choice("accepted; duplicate: accepted earlier; rejected: see errors", PlanDecision),
        "experiment_id": shapes.maybe(shapes.EXPERIMENT_ID),
        "points": shapes.maybe(shapes.count("number of points of the experiment")),
        "jobs": shapes.maybe(shapes.count("number of points times replicates")),
        "plan_sha": shapes.maybe(shapes.PLAN_SHA),
        "errors": shapes.sequence("all problems of the plan; empty unless rejected", _PROBLEM),
        "warnings": shapes.sequence("what is probably a mistake", _PROBLEM),
        "submission": shapes.maybe(
            shapes.mapping(
                "the stored message as in the publisher's PubAck; null if the plan was only validated",
                {
                    "stream": shapes.text("the message's stream"),
                    "seq": shapes.count("its sequence in the stream", 1),
                },
            )
        ),
    },
    {"estimate": shapes.maybe(_ESTIMATE), **shapes.SHORTENED},
)

_AGGREGATE: Final = shapes.mapping(
    "one metric, aggregated over completed jobs",
    {
        "n": shapes.count("number of jobs that have the metric"),
        "mean": shapes.maybe(shapes.number("the mean; null if n is 0")),
        "std": shapes.maybe(shapes.number("standard deviation of the sample (n - 1); null if n is below 2", minimum=0)),
        "min": shapes.maybe(shapes.number("the lowest value")),
        "max": shapes.maybe(shapes.number("the highest value")),
        "missing": shapes.count("number of completed jobs that lack the metric"),
    },
)
_METRICS: Final = shapes.by_name("the tracked metrics", _AGGREGATE)
_COUNTS: Final = shapes.mapping("jobs by state", {name.value: shapes.count(f"jobs {name.value}") for name in Bucket})
_GOAL: Final = shapes.choice("which values are better", ("minimize", "maximize"))
_BEST: Final = shapes.mapping(
    "the point with the best mean of the first metric that has a goal",
    {
        "point": shapes.POINT,
        "params": shapes.PARAMS,
        "metric": shapes.text("the metric that ranks points"),
        "goal": _GOAL,
        "mean": shapes.number("the metric's mean"),
        "std": shapes.maybe(shapes.number("the metric's standard deviation", minimum=0)),
        "n": shapes.count("number of jobs behind the mean", 1),
    },
)
_HEADING: Final = shapes.mapping(
    "what tables and pictures show of it",
    {},
    {"label": shapes.text("in place of the name"), "unit": shapes.text("the unit of its values")},
)
STATUS: Final = shapes.document(
    titles.STATUS,
    "The state of an experiment. The highest revision is the valid one.",
    {
        "experiment_id": shapes.EXPERIMENT_ID,
        "experiment_name": shapes.text("the experiment's name"),
        "group": shapes.maybe(shapes.text("the study that the experiment belongs to")),
        "tags": shapes.sequence("the plan's tags", shapes.text("a tag")),
        "state": shapes.choice("its state; completed, failed and cancelled experiments have ended", ExperimentState),
        "round": shapes.count("1, plus 1 each time the experiment is reopened", 1),
        "revision": shapes.count("revision of this document; readers ignore lower revisions"),
        "counts": _COUNTS,
        "total": shapes.count("number of jobs"),
        "progress": shapes.number(
            "share of the work that is done: jobs that ended, and of running ones what they reported",
            minimum=0,
            maximum=1,
        ),
        "throughput": shapes.number("jobs that ended per second, recently", minimum=0),
        "eta_seconds": shapes.maybe(shapes.number("time until the last job ends, at that rate", minimum=0)),
        "created_at": shapes.time("when its plan was accepted"),
        "started_at": shapes.maybe(shapes.time("when the experiment started")),
        "finished_at": shapes.maybe(shapes.time("when the experiment ended")),
        "updated_at": shapes.time("when this status was composed"),
        "worker_id": shapes.text("the worker that published this"),
        "metrics": _METRICS,
        "best": shapes.maybe(_BEST),
        "pauses": shapes.sequence(
            "who pauses it; its jobs start only while nobody does", shapes.choice("an owner of a pause", PauseOwner)
        ),
        "cancelling": shapes.maybe(
            shapes.choice("it is being cancelled: its open runs are stopped, or may end (drain)", CancelMode)
        ),
        "kept_open": shapes.flag("whether it stays open until `close`, even if all jobs have ended"),
        "settled": shapes.flag(f"whether this round has settled: see {titles.SETTLED}"),
        "excluded": shapes.count("number of jobs that are left out of metrics and ranking; `counts` has them too"),
        "reason": shapes.maybe(shapes.text("why the experiment is in this state, or why none of its jobs start")),
    },
    {
        "publisher": shapes.maybe(shapes.text("who sent the plan, where known; only in replies to list and get")),
        "description": shapes.maybe(shapes.text("the plan's own; this key and those below are only in replies to get")),
        "parameters": shapes.by_name(
            "name of each parameter to its dotted path", shapes.text("a dotted path; empty for a variable")
        ),
        "headings": shapes.mapping(
            f"labels and units, of the first {headings.MAX_RECORDED} of each that have one",
            {
                "parameters": shapes.by_name("parameters by their names", _HEADING),
                "metrics": shapes.by_name("metrics by their names", _HEADING),
            },
        ),
        "plan_sha": shapes.PLAN_SHA,
        "points": shapes.count("number of points", 1),
        "replicates": shapes.count("number of replicates of each point", 1),
        "plan_version": shapes.count("number of plans that it has had: 1, plus 1 each time it was extended", 1),
        "limits": shapes.maybe(limits.SCHEMA),
        "overrides": limits.OVERRIDES,
        "bytes": shapes.count("about how many bytes it takes in the manifest"),
        "changes": shapes.sequence(f"the latest changes ({titles.CHANGE}), the last one first", change_schemas.BRIEF),
        **shapes.SHORTENED,
    },
)

POINT: Final = shapes.document(
    titles.POINT,
    "A point: all replicates of one combination of parameters. The highest revision is the valid one.",
    {
        "experiment_id": shapes.EXPERIMENT_ID,
        "point": shapes.POINT,
        "run_id_suffix": shapes.RUN_ID_SUFFIX,
        "labels": shapes.LABELS,
        "params": shapes.PARAMS,
        "counts": _COUNTS,
        "metrics": _METRICS,
        "excluded": shapes.EXCLUDED,
        "ended": shapes.flag("whether all jobs of the point have ended"),
        "revision": shapes.count("position of the point's last end of a job; 0 while a job is open"),
    },
    shapes.SHORTENED,
)
_MORE: Final[Schema] = {
    "after_seq": shapes.count("position of the last result; send it to get the next page"),
    "more": shapes.flag("whether there may be another page"),
}
CONFIG: Final = shapes.document(
    titles.CONFIG,
    "A part of the configuration of a run.",
    {
        "simulation_id": shapes.SIMULATION_ID,
        "seed": shapes.SEED,
        "config_sha": shapes.maybe(shapes.CONFIG_SHA) | {"description": "recorded at the submission; null before"},
        "computed_sha": shapes.CONFIG_SHA | {"description": "of the configuration as the worker renders it now"},
        "config": shapes.text("YAML, from the requested offset"),
        "next_offset": shapes.maybe(shapes.count("send it to get the next part; null: this is the last", 1)),
    },
)
PLAN: Final = shapes.document(
    titles.PLAN,
    "A part of the text of an experiment's plan, as it was sent, or of its base configuration.",
    {
        "experiment_id": shapes.EXPERIMENT_ID,
        "version": shapes.count("1 is the plan as accepted; each `extend` with a plan made another version", 1),
        "versions": shapes.count("number of versions", 1),
        "part": shapes.choice("what the text is of", ("plan", "base")),
        "text": shapes.text("YAML or JSON, from the requested offset"),
        "next_offset": shapes.maybe(shapes.count("send it to get the next part; null: this is the last", 1)),
    },
)
SETTLED: Final = shapes.document(
    titles.SETTLED,
    "A round has settled: as many jobs have ended as the plan's quorum says, or all. Published once a round.",
    {
        "experiment_id": shapes.EXPERIMENT_ID,
        "experiment_name": shapes.text("the experiment's name"),
        "group": shapes.maybe(shapes.text("the study that the experiment belongs to")),
        "round": shapes.count("the round that settled", 1),
        "reason": shapes.choice("quorum: enough jobs ended; ended: all jobs ended first", ("quorum", "ended")),
        "counts": _COUNTS,
        "total": shapes.count("number of jobs"),
        "stragglers": shapes.count("number of jobs that had not ended"),
        "excluded": shapes.count("number of jobs that are left out of metrics and ranking"),
        "ended_seq": shapes.count("the results up to this `seq` are those that it counts"),
        "metrics": _METRICS,
        "best": shapes.maybe(_BEST),
        "settled_at": shapes.time("when the round settled"),
    },
    shapes.SHORTENED,
)

DOCUMENTS: Final[Mapping[str, Schema]] = MappingProxyType(
    {
        str(document["title"]): document
        for document in (
            DECISION,
            STATUS,
            results.SCHEMA,
            POINT,
            shapes.page(
                titles.LIST,
                "A page of experiments, the newest first.",
                key="experiments",
                items=STATUS,
                position=_CURSOR,
            ),
            shapes.page(
                titles.JOBS,
                "A page of jobs, by point and replicate.",
                key="jobs",
                items=results.SCHEMA,
                position=_CURSOR,
            ),
            shapes.page(titles.POINTS, "A page of points, by number.", key="points", items=POINT, position=_CURSOR),
            shapes.page(
                titles.RESULTS,
                "A page of ended jobs, in order of their ends.",
                key="results",
                items=results.SCHEMA,
                position=_MORE,
            ),
            CONFIG,
            PLAN,
            SETTLED,
            change_schemas.CHANGE,
            change_schemas.CHANGES,
        )
    }
)


def find(name: str) -> Schema | None:
    """The schema of a whole name (`ems.status.v1`) or of its word (`status`, `plan`); None if there is none."""
    if name == "plan":
        return schema.PLAN
    return DOCUMENTS.get(name) or DOCUMENTS.get(titles.full(name))


def names() -> list[str]:
    """The words of all schemas that `find` knows."""
    return ["plan", *(titles.word(name) for name in DOCUMENTS)]


def text(shape: Schema) -> str:
    """A schema as it is printed and published."""
    return json.dumps(shape, indent=2)
