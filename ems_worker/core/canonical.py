"""One spelling for each value, so that equal plans and equal configurations have equal digests."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Final, TypeAlias

JSON: TypeAlias = bool | int | float | str | list["JSON"] | dict[str, "JSON"] | None

BASE_PATH_KEYS: Final = ("base_config_file_path", "base_config_path")
BASE_KEY: Final = "base_config"


def canonical_json(value: object) -> bytes:
    """Canonical JSON in UTF-8: keys sorted by code point, no white space, nothing escaped that need not be.

    Numbers stay what they are: whole numbers in decimal, floats in the shortest form that reads back the same (Python's
    `repr`), so `1` and `1.0` differ. Raises ValueError for NaN and infinities.
    """
    return text(value).encode()


_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
# The same as text.
text: Final = _ENCODER.encode


def digest(value: object) -> str:
    """SHA-256 of the value's canonical JSON, in hexadecimal."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def plan_sha(data: Mapping[str, object], base: object) -> str:
    """The identity of a plan as sent: no defaults filled in, the base configuration's content in place of its path."""
    sha = hashlib.sha256()
    # Piece by piece: as one text a large plan takes its size again several times.
    for piece in _ENCODER.iterencode(with_base(data, base)):
        sha.update(piece.encode())
    return sha.hexdigest()


def with_base(data: Mapping[str, object], base: object) -> dict[str, object]:
    """The plan with the base configuration's content in it and no path to it."""
    content = {key: value for key, value in data.items() if key not in BASE_PATH_KEYS}
    content[BASE_KEY] = base
    return content


def differences(a: object, b: object) -> Iterator[str]:
    """Dotted paths at which two values differ, in order; a whole branch that only one has is one path."""
    return map(".".join, _differences(a, b, ()))


def _differences(a: object, b: object, place: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted({*a, *b}):
            if key in a and key in b:
                yield from _differences(a[key], b[key], (*place, key))
            else:
                yield (*place, key)
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for index, (one, other) in enumerate(zip(a, b, strict=True)):
            yield from _differences(one, other, (*place, str(index)))
    elif text(a) != text(b):
        yield place
