"""The pieces that JSON Schemas of plans are made of."""

from collections.abc import Sequence
from typing import Any, Final

Schema = dict[str, Any]
# A line of visible text.
LINE: Final = r"^[^\u0000-\u001f\u007f]*\S[^\u0000-\u001f\u007f]*$"


def mapping(properties: Schema, description: str, required: Sequence[str] = ()) -> Schema:
    """A mapping with these keys and no others."""
    schema: Schema = {"type": "object", "description": description, "properties": properties}
    schema["additionalProperties"] = False
    return schema | ({"required": [*required]} if required else {})


def array(items: Schema, description: str, **constraints: Any) -> Schema:
    """A list of such items."""
    return {"type": "array", "description": description, "items": items, **constraints}


def enum(choices: Sequence[str], description: str) -> Schema:
    """One of the choices."""
    return {"enum": [*choices], "description": description}


def text(description: str, pattern: str | None = None, max_length: int | None = None) -> Schema:
    """A string that matches the whole pattern."""
    schema: Schema = {"type": "string", "description": description}
    schema |= {"pattern": f"^(?:{pattern})$"} if pattern else {}
    return schema | ({"maxLength": max_length} if max_length else {})


def integer(description: str, low: int, high: int) -> Schema:
    """A whole number from `low` to `high`, both included."""
    return {"type": "integer", "description": description, "minimum": low, "maximum": high}


def number(description: str, above: float | None = None, *, least: float | None = None) -> Schema:
    """A number; greater than `above` and not smaller than `least`, if they are given."""
    schema: Schema = {"type": "number", "description": description}
    schema |= {"exclusiveMinimum": above} if above is not None else {}
    return schema | ({"minimum": least} if least is not None else {})


def count_or_percentage(description: str, least: int) -> Schema:
    """A whole number from `least`, or a percentage such as 5%."""
    percentage = {"type": "string", "pattern": r"^(100(\.0+)?|[0-9]{1,2}(\.[0-9]{1,6})?) ?%$"}
    return {"description": description, "anyOf": [{"type": "integer", "minimum": least}, percentage]}


EXPRESSION: Final = text("an expression over parameters, such as fish.count * env.temp < 2400", max_length=20_000)
