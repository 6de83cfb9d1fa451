"""The JSON Schema of plans, for editors: what can be checked without the base configuration.

Whatever the schema rejects is rejected; what it accepts may still be invalid. Limits and names come from the code that
parses plans.
"""

from typing import Final

from ems_worker.core import ids, seeds
from ems_worker.core.language import (
    aliases,
    axes,
    axis_kinds,
    checks,
    config_paths,
    design,
    distributions,
    listed,
    options,
    resources,
    samples,
    spaces,
    tracked,
    where,
)
from ems_worker.core.language import schema_parts as parts
from ems_worker.core.language.schema_parts import EXPRESSION, Schema

URL: Final = "https://json-schema.org/draft/2020-12/schema"

_PATH: Final = parts.text("a dotted path of the configuration; it may be new", max_length=config_paths.MAX_LENGTH)
_LABELS: Final[Schema] = {
    "type": "object",
    "description": "short texts by name, for runs",
    "propertyNames": {"pattern": f"^(?:{listed.LABEL.pattern})$"},
    "additionalProperties": {"type": "string", "maxLength": listed.MAX_LABEL},
}

_TEXT: Final = parts.text("one line", max_length=checks.MAX_SHOWN)
_SHOWN: Final[Schema] = {
    "unit": _TEXT | {"description": "the unit of the values, for tables and pictures", "pattern": parts.LINE},
    "label": _TEXT | {"description": "what tables and pictures show in place of the name", "pattern": parts.LINE},
}
_DURATION: Final = parts.text("a time such as 90s, 15m or 12h", checks.DURATION_PATTERN)
# Two names of a key: a plan has one of them.
_ALIASES: Final = {"base": "base_config_file_path", **aliases.LONG_NAMES}


_OF_VARIABLES: Final[Schema] = {
    "when": EXPRESSION | {"description": "a condition; points at which it is false leave the parameter out"},
    **_SHOWN,
}
_OF_PATHS: Final[Schema] = {
    "as": parts.text("the parameter's name in expressions, tables and columns", axes.NAME.pattern),
    "replace": {"type": "boolean", "description": "replace a mapping or list as a whole, in place of merging"},
    **_OF_VARIABLES,
}


def _axes(common: Schema) -> list[Schema]:
    """The forms of an axis: each has its own keys and the common ones."""
    forms = [form for kind in axis_kinds.KINDS for form in kind.forms]
    return [parts.mapping({**each.keys, **each.optional, **common}, each.description, (*each.keys,)) for each in forms]


_VARIABLES: Final[Schema] = {
    "type": "object",
    "description": "named axes that are no path of the configuration",
    "propertyNames": {"pattern": f"^(?:{axes.NAME.pattern})$", "not": {"enum": [*where.RESERVED]}},
    "additionalProperties": {"anyOf": [distributions.VALUES_SCHEMA, {"$ref": "#/$defs/variable"}]},
}
_DESIGN: Final[Schema] = {
    "sampler": parts.enum(["grid", *samples.SAMPLERS], "how 'dist' parameters are sampled"),
    "samples": parts.integer("how many samples", 1, samples.MAX_SAMPLES),
    "seed": parts.integer("the seed of the samples; by default seeds.root", 0, 2**63 - 1),
    "refill": {
        "type": "boolean",
        "description": "draw samples until enough satisfy the constraints on sampled parameters",
    },
    "zip": {
        "type": "array",
        "description": "groups of parameters that vary together",
        "items": {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True},
    },
}
_CONSTRAINTS: Final[Schema] = {
    "type": "array",
    "description": "conditions that every point satisfies",
    "items": EXPRESSION,
    "maxItems": design.MAX_CONSTRAINTS,
}
_UNITED: Final = parts.mapping(
    {
        "parameter_space": {"$ref": "#/$defs/space"},
        "parameters": {"$ref": "#/$defs/space"},
        "variables": _VARIABLES,
        "design": parts.mapping(_DESIGN, "which combinations become points; by default that of the plan"),
        "constraints": _CONSTRAINTS,
    },
    "one of several spaces",
)
_TABLE: Final = parts.text("the path of a CSV file, relative to the plan, which ems-publish reads")
_RUN: Final = parts.mapping(
    {
        "run_id_suffix": parts.text("the unique name of this point", listed.SUFFIX.pattern),
        "labels": _LABELS,
        "params_override": {"type": "object", "description": "values by nested or dotted path"},
    },
    "one point",
)

PLAN: Final[Schema] = {
    "$schema": URL,
    "title": "An experiment plan",
    **parts.mapping(
        {
            "$schema": {"type": "string"},
            "experiment_id": parts.text("the id; by default made from the name", ids.EXPERIMENT_ID.pattern),
            "experiment_name": parts.text("the experiment's name, one line", max_length=200) | {"pattern": parts.LINE},
            "description": parts.text("what the experiment is about", max_length=10_000),
            "base_config_file_path": parts.text("the path of the base configuration"),
            "base_config_path": parts.text("another name for base_config_file_path"),
            "base": parts.text("another name for base_config_file_path"),
            "name": {"$ref": "#/properties/experiment_name"},
            "parameters": {"$ref": "#/properties/parameter_space"},
            "replicates": {"$ref": "#/properties/num_replicates_per_run"},
            "metrics": {"$ref": "#/properties/metrics_to_track"},
            "base_config": {"type": "object", "description": "the base configuration itself"},
            "parameter_space": {
                "description": "what varies; a list has several spaces, and points are their union",
                "anyOf": [
                    {"$ref": "#/$defs/space"},
                    {"type": "array", "items": _UNITED, "minItems": 1, "maxItems": spaces.MAX_SPACES},
                ],
            },
            "variables": _VARIABLES,
            "design": parts.mapping(
                {**_DESIGN, "max_jobs": parts.integer("the plan is rejected if it has more jobs", 1, 2**52)},
                "which combinations become points",
            ),
            "constraints": _CONSTRAINTS,
            "runs": {
                "description": "points listed one by one",
                "anyOf": [
                    {"type": "array", "minItems": 1, "items": _RUN},
                    parts.mapping({axis_kinds.FILE: _TABLE}, "points of a file", (axis_kinds.FILE,)),
                ],
            },
            "num_replicates_per_run": parts.integer("how often each point is run", 1, seeds.REPLICATES - 1),
            "seeds": parts.mapping(
                {
                    "root": parts.integer("the number from which all seeds are derived", 0, 2**63 - 1),
                    "policy": parts.enum(["common", "independent", "list"], "whether points share their seeds"),
                    "values": {
                        "type": "array",
                        "description": "the seeds of policy list, one per replicate",
                        "items": {"type": "integer", "minimum": 0, "maximum": 2**53 - 1},
                        "uniqueItems": True,
                    },
                },
                "the random seeds of runs",
            )
            | {
                "if": {"properties": {"policy": {"const": "list"}}, "required": ["policy"]},
                "then": {"required": ["values"]},
                "else": {"properties": {"values": False}},
            },
            "inject": parts.mapping(
                {"seed": _PATH, "simulation_id": _PATH}, "where values of the run are written into its configuration"
            ),
            "metrics_to_track": parts.array(
                {"anyOf": [{"$ref": "#/$defs/metric"}, {"$ref": "#/$defs/tracked"}]},
                "the metrics that results, points and statuses report",
            ),
            "limits": parts.mapping(
                {
                    "max_concurrent": parts.integer("the number of runs at the same time", 1, 1_000_000),
                    "run_timeout": _DURATION,
                    "run_timeout_seconds": parts.number("the longest time that a run may take", 0),
                    "max_attempts": parts.integer("the number of attempts at each job", 1, 1000),
                    "retry_on": parts.array({"enum": [*options.ERROR_KINDS]}, "errors after which a job is retried"),
                    "max_failed": parts.count_or_percentage("how many jobs may fail: a number or a percentage", 0),
                    "fail_fast": {"type": "boolean", "description": "end as soon as too many jobs have failed"},
                    "priority": parts.integer(
                        "runs with a higher priority start first; 0 by default",
                        -options.MAX_PRIORITY,
                        options.MAX_PRIORITY,
                    ),
                },
                "the limits of the experiment",
            ),
            "settle": parts.mapping(
                {
                    "quorum": parts.count_or_percentage("how many jobs have to end: a number or a percentage", 1),
                    "grace": _DURATION,
                    "grace_seconds": parts.number("how long to wait for the other jobs then", least=0),
                    "stragglers": parts.enum(options.STRAGGLERS, "whether jobs that are open then are cancelled"),
                },
                "when a round settles",
            ),
            "hold": {"type": "boolean", "description": "start nothing until the experiment is resumed"},
            "keep_open": {"type": "boolean", "description": "stay open until the experiment is closed"},
            "model_version": parts.text("the version of the model that runs need", max_length=200)
            | {"pattern": parts.LINE},
            "resources": parts.mapping(
                {
                    "cpus": parts.number("processors; a part of one is possible", 0),
                    "memory": parts.text("memory, such as 500MB or 4GiB", resources.MEMORY.pattern),
                    "gpus": parts.integer("graphics processors", 0, resources.MAX_GPUS),
                },
                "what each run needs; the orchestrator gets it as labels",
            ),
            "simulator": parts.text("the name of a simulator that the orchestrator knows", resources.NAME.pattern),
            "group": parts.text("the study that the experiment belongs to", ids.TOKEN.pattern),
            "tags": parts.array(
                {"type": "string", "maxLength": 64, "pattern": parts.LINE}, "keywords for the experiment", maxItems=64
            ),
            "labels": _LABELS,
            "allow_new_paths": {
                "type": "boolean",
                "description": "permit paths that are not in the base configuration",
            },
        },
        "An experiment: a base configuration, what varies, and how often each point is run.",
    ),
    "anyOf": [{"required": [key]} for key in ("experiment_name", "name", "experiment_id")],
    "allOf": [{"not": {"required": [short, long]}} for short, long in _ALIASES.items()],
    "$defs": {
        "metric": parts.text("a metric's name: one line of visible text", max_length=tracked.MAX_NAME)
        | {"pattern": parts.LINE},
        "tracked": parts.mapping(
            {
                "name": {"$ref": "#/$defs/metric"},
                "goal": parts.enum(["minimize", "maximize"], "whether the lowest or the highest values are best"),
                "from": parts.enum(["run", "event"], "whether the run reports it, or an event after the run"),
                "timeout": _DURATION,
                "timeout_seconds": parts.number("how long to wait for it after the run", 0),
                **_SHOWN,
            },
            "a metric with a goal, or one that is computed after the run",
            ("name",),
        ),
        "space": {
            "type": "object",
            "description": "what varies, by dotted path or nested like the base configuration",
            "additionalProperties": {
                "anyOf": [distributions.VALUES_SCHEMA, {"$ref": "#/$defs/axis"}, {"$ref": "#/$defs/space"}]
            },
        },
        "axis": {"anyOf": _axes(_OF_PATHS)},
        "variable": {"anyOf": _axes(_OF_VARIABLES)},
    },
}
