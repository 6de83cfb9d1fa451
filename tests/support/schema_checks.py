"""Checks documents against their published schemas, and more strictly: a key that isn't described is an error."""

import functools
from typing import Any

import jsonschema

from ems_worker.core.documents import schemas


def closed(schema: Any) -> Any:
    """The schema without additional keys in the objects that list their keys."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {keyword: closed(part) for keyword, part in schema.items()}
    if "properties" in strict and isinstance(strict.get("required"), list):
        strict.setdefault("additionalProperties", False)
    return strict


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(closed(schemas.DOCUMENTS[name]))


def check(document: Any) -> str:
    """Returns the name of the document's schema. Raises jsonschema.ValidationError if it doesn't conform."""
    name: str = document["schema"]
    _validator(name).validate(document)
    return name
