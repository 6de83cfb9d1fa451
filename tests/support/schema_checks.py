"""Documents held against their published schemas, more strictly than a reader would: no key may be undescribed."""

import functools
from typing import Any

import jsonschema

from ems_worker.core.documents import schemas


def closed(schema: Any) -> Any:
    """The schema with every object that lists its keys taking no others."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    made = {word: closed(part) for word, part in schema.items()}
    if "properties" in made and isinstance(made.get("required"), list):
        made.setdefault("additionalProperties", False)
    return made


@functools.cache
def _validator(name: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(closed(schemas.DOCUMENTS[name]))


def check(document: Any) -> str:
    """Raises where it isn't what its `schema` says; the name of that."""
    name: str = document["schema"]
    _validator(name).validate(document)
    return name
