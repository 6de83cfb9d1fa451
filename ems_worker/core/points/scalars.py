"""Scalars of YAML: what plain scalars mean in versions 1.1 and 1.2, and how to write text that both read alike."""

import functools
import re
from typing import Final

Scalar = bool | int | float | str | None

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_TRUE: Final = frozenset({"true", "True", "TRUE"})
_FALSE: Final = frozenset({"false", "False", "FALSE"})
_INT: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL_OR_HEX: Final = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")

# Scalars that are text in YAML 1.2 but not in 1.1, as PyYAML, its most common reader, resolves them.
_WORDS_1_1: Final = re.compile(r"(?:yes|Yes|YES|no|No|NO|on|On|ON|off|Off|OFF)|<<|=")
_NUMBER_1_1: Final = re.compile(
    r"""[-+]?0b[0-1_]+ | [-+]?0[0-7_]+ | [-+]?(?:0|[1-9][0-9_]*) | [-+]?0x[0-9a-fA-F_]+
      | [-+]?[1-9][0-9_]*(?::[0-5]?[0-9])++
      | [-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)? | \.[0-9][0-9_]*(?:[eE][-+][0-9]+)?
      | [-+]?[0-9][0-9_]*(?::[0-5]?[0-9])++\.[0-9_]*""",
    re.VERBOSE,
)
_TIME_1_1: Final = re.compile(
    r"""[0-9]{4}-[0-9]{2}-[0-9]{2}
      | [0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?
        (?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?""",
    re.VERBOSE,
)
# Numbers that both versions read alike: no leading zero, and an exponent only with a point and a sign.
_INT_BOTH: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT_BOTH: Final = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_HEX_BOTH: Final = re.compile(r"0x[0-9a-fA-F]+")

# Text that needs no quotes: it starts with a letter, so that only reserved words have another meaning.
# The quantifiers are possessive: others keep state for each word of a long text.
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*+(?: [A-Za-z0-9_./+-]++)*+")
_RESERVED: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"})
# The longest text that the cache of quoted texts takes: thousands of long ones would fill gigabytes.
_MAX_CACHED: Final = 200
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Characters that are escaped: control characters, line breaks and byte-order marks of either version, and characters
# beyond the basic plane, which some readers of 1.1 reject.
_UNSAFE: Final = re.compile(
    r'[\\"\x00-\x1f\x7f-\xa0\xad\u2000-\u200f\u2028-\u202f\u2066-\u2069\ufeff\ufffe\uffff]|[^\u0000-\uffff]'
)

MAX_INTEGER: Final = 2**64 - 1
MIN_INTEGER: Final = -(2**63)


class NotFiniteError(ValueError):
    """An infinity, NaN, or a number that is too large for 64 bits."""


def read(text: str) -> Scalar:
    """The value of a plain (unquoted) scalar in YAML 1.2's core schema. Raises NotFiniteError."""
    if text in _NULL:
        return None
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    if text[0] in "+-.0123456789":
        if _INT.fullmatch(text):
            return integer(text)
        if _FLOAT.fullmatch(text):
            return number(text)
        if _OCTAL_OR_HEX.fullmatch(text):
            return integer(text, 0)
        if _SPECIAL.fullmatch(text):
            raise NotFiniteError(text)
    return text


def integer(text: str, base: int = 10) -> int:
    """A whole number of 64 bits, signed or unsigned. Raises NotFiniteError if it is larger."""
    if base == 10 and len(text) > 20 and len(text.lstrip("+-").lstrip("0")) > 20:
        raise NotFiniteError(text)  # because int() takes quadratic time
    value = int(text, base)
    if not MIN_INTEGER <= value <= MAX_INTEGER:
        raise NotFiniteError(text)
    return value


def number(text: str) -> float:
    """A floating-point number. Raises NotFiniteError if it is too large."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotFiniteError(text)
    return value


def same_in_1_1(text: str) -> bool:
    """True if readers of YAML 1.1 and 1.2 read the same value from this plain scalar."""
    if not text:
        return True
    if text[0] in "+-.0123456789":
        if _INT_BOTH.fullmatch(text) or _FLOAT_BOTH.fullmatch(text) or _HEX_BOTH.fullmatch(text):
            return True
        different = _INT, _FLOAT, _OCTAL_OR_HEX, _NUMBER_1_1, _TIME_1_1
        return not any(pattern.fullmatch(text) for pattern in different)
    return not _WORDS_1_1.fullmatch(text)


def write(value: Scalar) -> str:
    """The value as a scalar of block YAML, which readers of 1.1 and 1.2 load alike."""
    if value is None:
        return "null"
    if value is True:
        return "true"
    if value is False:
        return "false"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float):
        return decimal(repr(value))
    return str(value)


def decimal(text: str) -> str:
    """The `repr` of a float with the point that YAML 1.1 requires: `1e-05` is text there, `1.0e-05` a number."""
    if "e" not in text or "." in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa}.0e{exponent}"


def quoted(text: str) -> str:
    """The text, in double quotes unless every reader takes it for text without them."""
    return _cached_quoted(text) if len(text) <= _MAX_CACHED else _quoted(text)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return f'"{_UNSAFE.sub(_escape, text)}"'


_cached_quoted = functools.lru_cache(maxsize=4096)(_quoted)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
