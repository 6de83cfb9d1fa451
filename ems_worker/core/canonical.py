"""Canonical JSON: equal plans and equal configurations have equal digests."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

# Whole numbers of plans fit 64 bits, signed or unsigned.
WHOLE: Final = range(-(2**63), 2**64)

BASE_PATH_KEYS: Final = ("base_config_file_path", "base_config_path", "base")
BASE_KEY: Final = "base_config"


def canonical_json(value: object) -> bytes:
    """Canonical JSON in UTF-8: keys sorted by code point, no white space, no unnecessary escapes.

    Whole numbers are in decimal, and floats in the shortest form that reads back exactly (Python's `repr`), so that `1`
    and `1.0` differ. Raises ValueError for NaN and infinities.
    """
    return text(value).encode()


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
# Canonical JSON as text.
text: Final = _ENCODER.encode


def digest(value: object) -> str:
    """SHA-256 of the value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plan_sha(data: Mapping[str, object], base: object) -> str:
    """The identity of a plan as sent: without defaults, with the content of the base configuration for its path."""
    sha = hashlib.sha256()
    # Piece by piece, because the whole text would take several times the size of a large plan.
    for piece in _ENCODER.iterencode(with_base(data, base)):
        sha.update(piece.encode())
    return sha.hexdigest()


def with_base(data: Mapping[str, object], base: object) -> dict[str, object]:
    """The plan with the content of the base configuration and without its path."""
    content = {key: value for key, value in data.items() if key not in BASE_PATH_KEYS}
    content[BASE_KEY] = base
    return content


def differences(a: object, b: object) -> Iterator[str]:
    """The dotted paths at which two values differ, in order. A branch that only one value has counts as one path."""
    return map(".".join, _differences(a, b, ()))


def _differences(a: object, b: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            if key in a and key in b:
                yield from _differences(a[key], b[key], (*path, key))
            else:
                yield (*path, key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _differences(left, right, (*path, str(index)))
    elif text(a) != text(b):
        yield path
