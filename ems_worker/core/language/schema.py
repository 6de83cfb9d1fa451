"""The JSON Schema of plans, for editors: what can be told of a plan without its base configuration.

The code is the judge: what the schema refuses is refused, what it takes may still be wrong. The bounds and words are
the code's own.
"""

from collections.abc import Sequence
from typing import Any, Final

from ems_worker.core import ids, seeds
from ems_worker.core.language import axes, axis_values, design, listed, options, samples

Schema = dict[str, Any]

URL: Final = "https://json-schema.org/draft/2020-12/schema"


def _object(properties: Schema, description: str, required: tuple[str, ...] = ()) -> Schema:
    made: Schema = {"type": "object", "description": description, "properties": properties}
    made["additionalProperties"] = False
    return made | ({"required": list(required)} if required else {})


def _list(items: Schema, description: str, **bounds: Any) -> Schema:
    return {"type": "array", "description": description, "items": items, **bounds}


def _words(words: Sequence[str], description: str) -> Schema:
    return {"enum": [*words], "description": description}


def _text(description: str, pattern: str | None = None, longest: int | None = None) -> Schema:
    made: Schema = {"type": "string", "description": description}
    return made | ({"pattern": f"^(?:{pattern})$"} if pattern else {}) | ({"maxLength": longest} if longest else {})


def _whole(description: str, low: int, high: int) -> Schema:
    return {"type": "integer", "description": description, "minimum": low, "maximum": high}


def _number(description: str, above: float | None = None) -> Schema:
    made: Schema = {"type": "number", "description": description}
    return made | ({"exclusiveMinimum": above} if above is not None else {})


_EXPRESSION: Final = _text("an expression over parameters, such as fish.count * env.temp < 2400", longest=1000)
_PATH: Final = _text("a dotted path into the configuration; it need not exist", longest=1000)
_LABELS: Final[Schema] = {
    "type": "object",
    "description": "short texts by name, carried by runs",
    "propertyNames": {"pattern": f"^(?:{listed.LABEL.pattern})$"},
    "additionalProperties": {"type": "string", "maxLength": 256},
}
_VALUES: Final[Schema] = {"type": "array", "description": "the values, each once", "minItems": 1}

_LINE: Final = r"^[^\u0000-\u001f\u007f]*\S[^\u0000-\u001f\u007f]*$"


def _axis(description: str, forms_of_it: Schema, optional: Schema | None = None) -> Schema:
    """One form of an axis: all of its own keys, and the two that every axis may have."""
    common = {
        "as": _text("a name for expressions, tables and columns", axes.NAME.pattern),
        "when": _EXPRESSION | {"description": "the condition without which this parameter is left out"},
    }
    return _object({**forms_of_it, **(optional or {}), **common}, description, tuple(forms_of_it))


def _distribution(name: str, description: str, keys: Schema) -> Schema:
    return _axis(description, {"dist": {"const": name, "description": "the distribution"}, **keys})


_RANGE: Final = _object(
    {
        "start": _number("the first value"),
        "stop": _number("the last value"),
        "num": _whole("how many values", 1, axis_values.LARGEST),
        "step": {"type": "number", "description": "from one value to the next", "not": {"const": 0}},
    },
    "evenly spaced values, both ends included; 'num' or 'step'",
    ("start", "stop"),
) | {"oneOf": [{"required": ["num"]}, {"required": ["step"]}]}
_LOGRANGE: Final = _object(
    {
        "start": _number("the first value", 0),
        "stop": _number("the last value", 0),
        "num": _whole("how many values", 1, axis_values.LARGEST),
    },
    "values that are each the same multiple of the one before",
    ("start", "stop", "num"),
)
_LOW: Final = _number("the least value")
_HIGH: Final = _number("the largest value")
_AXES: Final = [
    _axis("values, one a point", {"values": _VALUES}),
    _axis("evenly spaced values", {"range": _RANGE}),
    _axis("logarithmically spaced values", {"logrange": _LOGRANGE}),
    _axis("a constant", {"value": {"description": "the constant, lists too"}}),
    _axis("a value derived from other parameters", {"expr": _EXPRESSION}),
    _distribution("uniform", "samples, evenly distributed", {"low": _LOW, "high": _HIGH}),
    _distribution("loguniform", "samples, each magnitude alike", {"low": _number("the least value", 0), "high": _HIGH}),
    _distribution("int", "whole samples", {"low": _LOW | {"type": "integer"}, "high": _HIGH | {"type": "integer"}}),
    _distribution("normal", "samples around a mean", {"mean": _number("mean"), "std": _number("deviation", 0)}),
    _distribution("choice", "samples of some values", {"values": _VALUES}),
]

PLAN: Final[Schema] = {
    "$schema": URL,
    "title": "An experiment plan",
    **_object(
        {
            "$schema": {"type": "string"},
            "experiment_id": _text("the experiment's id; else made from its name", ids.EXPERIMENT_ID.pattern),
            "experiment_name": _text("the experiment's name, one line", longest=200) | {"pattern": _LINE},
            "description": _text("what this is about", longest=10_000),
            "base_config_file_path": _text("the base configuration's file"),
            "base_config_path": _text("another name for base_config_file_path"),
            "base_config": {"type": "object", "description": "the base configuration itself"},
            "parameter_space": {"$ref": "#/$defs/space"},
            "design": _object(
                {
                    "sampler": _words(["grid", *samples.SAMPLERS], "how 'dist' parameters are sampled"),
                    "samples": _whole("how many samples", 1, samples.MOST_SAMPLES),
                    "seed": _whole("the samples' seed; seeds.root if absent", 0, 2**63 - 1),
                    "zip": {
                        "type": "array",
                        "description": "groups of parameters that vary together",
                        "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
                    },
                    "max_jobs": _whole("more jobs than this are a mistake", 1, 2**52),
                },
                "which combinations become points",
            ),
            "constraints": {
                "type": "array",
                "description": "what every point satisfies",
                "items": _EXPRESSION,
                "maxItems": design.MOST_CONSTRAINTS,
            },
            "runs": {
                "type": "array",
                "description": "points listed one by one",
                "minItems": 1,
                "items": _object(
                    {
                        "run_id_suffix": _text("a name of this point, unique", listed.SUFFIX.pattern),
                        "labels": _LABELS,
                        "params_override": {"type": "object", "description": "values by nested or dotted path"},
                    },
                    "one point",
                ),
            },
            "num_replicates_per_run": _whole("how often each point is run", 1, seeds.REPLICATES - 1),
            "seeds": _object(
                {
                    "root": _whole("where all seeds come from", 0, 2**63 - 1),
                    "policy": _words(["common", "independent", "list"], "whether points share seeds"),
                    "values": {
                        "type": "array",
                        "description": "the seeds of policy list, one a replicate",
                        "items": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
                        "uniqueItems": True,
                    },
                },
                "the runs' random seeds",
            )
            | {
                "if": {"properties": {"policy": {"const": "list"}}, "required": ["policy"]},
                "then": {"required": ["values"]},
                "else": {"properties": {"values": False}},
            },
            "inject": _object({"seed": _PATH, "simulation_id": _PATH}, "what is written into each configuration"),
            "metrics_to_track": _list(
                {"anyOf": [{"$ref": "#/$defs/metric"}, {"$ref": "#/$defs/tracked"}]},
                "metrics that results, points and status report",
            ),
            "limits": _object(
                {
                    "max_concurrent": _whole("runs at once", 1, 1_000_000),
                    "run_timeout_seconds": _number("how long one run may take", 0),
                    "max_attempts": _whole("tries of each job", 1, 1000),
                    "retry_on": _list({"enum": [*options.ERROR_KINDS]}, "errors that are tried again"),
                    "max_failed": {
                        "description": "jobs that may fail: a number or a percentage",
                        "anyOf": [
                            {"type": "integer", "minimum": 0},
                            {"type": "string", "pattern": r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,6})?) ?%$"},
                        ],
                    },
                    "fail_fast": {"type": "boolean", "description": "end as soon as too many failed"},
                    "priority": _whole(
                        "whose runs go first: the higher, 0 if absent",
                        -options.HIGHEST_PRIORITY,
                        options.HIGHEST_PRIORITY,
                    ),
                },
                "bounds of the experiment",
            ),
            "model_version": _text("the version of the model; no other runs it", longest=200) | {"pattern": _LINE},
            "group": _text("the study that this belongs to", ids.TOKEN.pattern),
            "tags": _list(
                {"type": "string", "maxLength": 64, "pattern": _LINE}, "words for the experiment", maxItems=64
            ),
            "labels": _LABELS,
            "allow_new_paths": {"type": "boolean", "description": "permit paths that the base doesn't have"},
        },
        "An experiment: a base configuration, what varies, and how often each point is run.",
    ),
    "anyOf": [{"required": ["experiment_name"]}, {"required": ["experiment_id"]}],
    "$defs": {
        "metric": _text("a metric's name", options.METRIC.pattern),
        "tracked": _object(
            {
                "name": {"$ref": "#/$defs/metric"},
                "goal": _words(["minimize", "maximize"], "which points are best"),
                "from": _words(["run", "event"], "who reports it"),
                "timeout_seconds": _number("how long to wait for it", 0),
            },
            "a metric with a goal, or one that is computed after the run",
            ("name",),
        ),
        "space": {
            "type": "object",
            "description": "what varies, by dotted path or nested as the base configuration is",
            "additionalProperties": {"anyOf": [_VALUES, {"$ref": "#/$defs/axis"}, {"$ref": "#/$defs/space"}]},
        },
        "axis": {"anyOf": _AXES},
    },
}
