"""Masks secrets in everything that is printed or logged."""

import re
from collections.abc import Iterable
from typing import Final

MASK: Final = "***"
# A password may contain "@": only the last one ends it.
_CREDENTIALS = re.compile(r"^(\w+://)?.*@", re.DOTALL)


def url(address: str) -> str:
    """The address with a mask in place of its user name, password or token."""
    return _CREDENTIALS.sub(rf"\1{MASK}@", address)


def urls(addresses: Iterable[str], separator: str = ", ") -> str:
    """The addresses as one text, each of them masked."""
    return separator.join(map(url, addresses))
