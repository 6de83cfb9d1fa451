"""The parts that JSON Schemas of documents are put together from."""

from collections.abc import Iterable
from typing import Any, Final

from ems_worker.core import ids
from ems_worker.core.language import schema

Schema = dict[str, Any]

_SHA: Final = "^[0-9a-f]{64}$"


def mapping(description: str, properties: Schema, optional: Schema | None = None) -> Schema:
    """An object that always has these keys, and may have the optional ones and others."""
    return {
        "type": "object",
        "description": description,
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
    }


def text(description: str, pattern: str | None = None) -> Schema:
    shape: Schema = {"type": "string", "description": description}
    return shape | ({"pattern": pattern} if pattern else {})


def choice(description: str, values: Iterable[str]) -> Schema:
    """One of these texts."""
    return {"type": "string", "description": description, "enum": [str(value) for value in values]}


def count(description: str, least: int = 0) -> Schema:
    return {"type": "integer", "description": description, "minimum": least}


def number(description: str, **limits: float) -> Schema:
    return {"type": "number", "description": description, **limits}


def flag(description: str) -> Schema:
    return {"type": "boolean", "description": description}


def sequence(description: str, items: Schema) -> Schema:
    return {"type": "array", "description": description, "items": items}


def by_name(description: str, values: Schema) -> Schema:
    """An object whose keys are names, all with values of one shape."""
    return {"type": "object", "description": description, "additionalProperties": values}


def time(description: str) -> Schema:
    return text(f"{description}, UTC", r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$")


def maybe(shape: Schema) -> Schema:
    """The same, or null."""
    kind = shape["type"]
    nullable = {**shape, "type": [kind, "null"]}
    return nullable | ({"enum": [*shape["enum"], None]} if "enum" in shape else {})


def document(name: str, description: str, properties: Schema, optional: Schema | None = None) -> Schema:
    """A whole document."""
    head: Schema = {"schema": {"const": name, "description": "name and version of this schema"}}
    return {"$schema": schema.URL, "title": name, **mapping(description, {**head, **properties}, optional)}


def page(name: str, description: str, *, key: str, items: Schema, position: Schema) -> Schema:
    """A reply that carries other documents, whose schema is under $defs."""
    item = {keyword: part for keyword, part in items.items() if keyword not in ("$schema", "$defs")}
    whole = document(name, description, {key: sequence("the documents", {"$ref": "#/$defs/item"}), **position})
    return {**whole, "$defs": {**items.get("$defs", {}), "item": item}}


# Shapes that several documents share.
EXPERIMENT_ID: Final = text("the experiment's id", f"^(?:{ids.EXPERIMENT_ID.pattern})$")
SIMULATION_ID: Final = text("the run's id: experiment, point, replicate, attempt", r"^.+-p\d{6,}-r\d{3,}-a\d+$")
SHORTENED: Final[Schema] = {
    "shortened": sequence("the fields that were cut because the document was too large for a message", text("a field"))
}
PLAN_SHA: Final = text("SHA-256 of the plan's canonical JSON", _SHA)
CONFIG_SHA: Final = text("SHA-256 of the canonical JSON of the run's configuration and seed", _SHA)
SEED: Final = count("the random seed")
PARAMS: Final = by_name(
    "parameters by their name or dotted path; a value of more than 4 KB of JSON is {sha256, bytes}",
    {"description": "any JSON value"},
)
# Of a point, wherever one is described.
POINT: Final = count("the point's number")
RUN_ID_SUFFIX: Final = maybe(text("the plan's own name for the point"))
LABELS: Final = by_name("the plan's labels of the point", text("a short text"))
# Of a job or a point.
EXCLUDED: Final = maybe(text("why it is left out of aggregates and ranking; null: it counts"))
