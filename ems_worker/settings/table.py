"""The settings as documentation: what `ems-worker config`, `--help` and the operator's table show."""

import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pydantic
from annotated_types import Ge, Gt, Le, Unit
from pydantic.fields import FieldInfo

from ems_worker.settings import model

PREFIX = "EMS_"
# What stands for a secret wherever it would be shown.
SECRET = "***"  # noqa: S105  its opposite
SECRETS = frozenset(
    name
    for name, field in model.Settings.model_fields.items()
    if pydantic.SecretStr in typing.get_args(field.annotation)
)


@dataclass(frozen=True, slots=True)
class Description:
    """One setting; `default`, `unit` and `constraint` are texts, empty where there is none."""

    name: str
    env: str
    flag: str
    default: str
    unit: str
    constraint: str
    description: str
    is_switch: bool
    is_secret: bool


def describe() -> Iterator[Description]:
    """All settings, in the order in which they are declared."""
    for name, field in model.Settings.model_fields.items():
        yield Description(
            name=name,
            env=variable(name),
            flag=flag(name),
            default="the host's name" if field.default_factory is not None else shown(field.default),
            unit=next((str(item.unit) for item in field.metadata if isinstance(item, Unit)), ""),
            constraint=_constraint(field),
            description=field.description or "",
            is_switch=field.annotation is bool,
            is_secret=name in SECRETS,
        )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return f"{PREFIX}{name.upper()}"


def flag(name: str) -> str:
    """The flag of a setting."""
    return f"--{name.replace('_', '-')}"


def shown(value: object) -> str:
    """A value as people write it, with user names and passwords in URLs left out."""
    if value is None:
        return ""
    if isinstance(value, pydantic.SecretStr):
        return SECRET
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ",".join(re.sub(r"^(\w+://)?.*@", r"\1***@", str(item)) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _constraint(field: FieldInfo) -> str:
    """The bounds of a number, or the words to choose from."""
    if typing.get_origin(field.annotation) is Literal:
        return " | ".join(typing.get_args(field.annotation))
    inner = [item for part in typing.get_args(field.annotation) for item in getattr(part, "__metadata__", ())]
    return ", ".join(text for item in [*field.metadata, *inner] if (text := _bound(item)))


def _bound(item: object) -> str:
    match item:
        case Ge(ge):
            return f"≥ {ge}"
        case Gt(gt):
            return f"> {gt}"
        case Le(le):
            return f"≤ {le}"
        case _:
            return ""
