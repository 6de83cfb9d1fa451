"""Masks secrets in everything that is printed or logged."""

import re
from collections.abc import Iterable
from typing import Final

import pydantic

MASK: Final = "***"
# A password may contain "@": only the last one ends it.
_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)


def url(address: str) -> str:
    """The address with a mask in place of its user name, password or token."""
    return _CREDENTIALS.sub(rf"\1{MASK}@", address)


def urls(addresses: Iterable[str], separator: str = ", ") -> str:
    """The addresses as one text, each of them masked."""
    return separator.join(map(url, addresses))


def value(setting: object) -> str:
    """The value of a setting as users write it, without secrets."""
    if setting is None:
        return ""
    if isinstance(setting, pydantic.SecretStr):
        return MASK
    if isinstance(setting, bool):
        return str(setting).lower()
    if isinstance(setting, tuple | list):
        return urls(map(str, setting), separator=",")
    return f"{setting:g}" if isinstance(setting, float) else str(setting)
