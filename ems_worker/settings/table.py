"""The settings as documentation: the source of `ems-worker settings`, `--help` and the table in docs/settings.md."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import pydantic
from annotated_types import Ge, Gt, Le, Unit
from pydantic.fields import FieldInfo

from ems_worker.settings import masking, model

PREFIX = "EMS_"
SECRETS = frozenset(
    name
    for name, field in model.Settings.model_fields.items()
    if pydantic.SecretStr in typing.get_args(field.annotation)
)


@dataclass(frozen=True, slots=True)
class Description:
    """One setting. `default`, `unit` and `constraint` are empty where the setting has none."""

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
    """All settings, in the order of their declaration."""
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


def _constraint(field: FieldInfo) -> str:
    """The range of a number, or the choices of an enumeration."""
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


def shown(setting: object) -> str:
    """The value of a setting as users write it, without secrets."""
    if setting is None:
        return ""
    if isinstance(setting, pydantic.SecretStr):
        return masking.MASK
    if isinstance(setting, bool):
        return str(setting).lower()
    if isinstance(setting, tuple | list):
        return masking.urls(map(str, setting), separator=",")
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
