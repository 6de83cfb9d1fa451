"""How YAML reads and writes single values: what plain words mean in 1.1 and 1.2, and text that both read alike."""

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

# Words of YAML 1.1 that are ordinary text in 1.2, as PyYAML, its most used reader, takes them.
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
# Numbers that both versions take for the same number: no leading zero, and an exponent only with a point and a sign.
_INT_BOTH: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]*)")
_FLOAT_BOTH: Final = re.compile(r"(?:[-+]?[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+][0-9]+)?")
_HEX_BOTH: Final = re.compile(r"0x[0-9a-fA-F]+")

# Text that needs no quotes anywhere: starts with a letter, so that it can only be one of the reserved words.
# Possessive: else it keeps state for each word of a long text.
_PLAIN: Final = re.compile(r"[A-Za-z][A-Za-z0-9_./+-]*+(?: [A-Za-z0-9_./+-]++)*+")
_RESERVED: Final = frozenset({"null", "true", "false", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"})
# Only short texts are remembered with their quotes: four thousand long ones would be gigabytes.
_LONGEST_KNOWN: Final = 200
_ESCAPES: Final = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\t": "\\t", "\r": "\\r"}
# Not to be written as they are: controls, what either version takes for a line break or byte-order mark, and all
# beyond the basic plane, which some readers of 1.1 refuse.
_UNSAFE: Final = re.compile(
    r'[\\"\x00-\x1f\x7f-\xa0\xad\u2000-\u200f\u2028-\u202f\u2066-\u2069\ufeff\ufffe\uffff]|[^\u0000-\uffff]'
)

LARGEST: Final = 2**64 - 1
SMALLEST: Final = -(2**63)


class NotFiniteError(ValueError):
    """An infinity, NaN, or a number too large to be held."""


def read(text: str) -> Scalar:
    """A plain (unquoted) scalar by YAML 1.2's core schema. Raises NotFiniteError for a number that can't be held."""
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
    """A whole number that fits 64 bits, signed or not; else NotFiniteError."""
    if base == 10 and len(text) > 20 and len(text.lstrip("+-").lstrip("0")) > 20:
        raise NotFiniteError(text)  # before int() spends quadratic time on its digits
    value = int(text, base)
    if not SMALLEST <= value <= LARGEST:
        raise NotFiniteError(text)
    return value


def number(text: str) -> float:
    """A floating-point number; NotFiniteError where it is too large to be one."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotFiniteError(text)
    return value


def same_in_1_1(text: str) -> bool:
    """True if readers of YAML 1.1 and 1.2 take this plain scalar for the same value."""
    if not text:
        return True
    if text[0] in "+-.0123456789":
        if _INT_BOTH.fullmatch(text) or _FLOAT_BOTH.fullmatch(text) or _HEX_BOTH.fullmatch(text):
            return True
        odd = _INT, _FLOAT, _OCTAL_OR_HEX, _NUMBER_1_1, _TIME_1_1
        return not any(pattern.fullmatch(text) for pattern in odd)
    return not _WORDS_1_1.fullmatch(text)


def write(value: Scalar) -> str:
    """The value as a scalar of block YAML that readers of 1.1 and 1.2 load alike."""
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
    """A float's `repr` with the point that YAML 1.1 wants: `1e-05` is text there, `1.0e-05` a number."""
    if "e" not in text or "." in text:
        return text
    mantissa, exponent = text.split("e")
    return f"{mantissa}.0e{exponent}"


def quoted(text: str) -> str:
    """The text, in double quotes unless it is plainly text to every reader."""
    return _known_quoted(text) if len(text) <= _LONGEST_KNOWN else _quoted(text)


def _quoted(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _RESERVED:
        return text
    return f'"{_UNSAFE.sub(_escape, text)}"'


_known_quoted = functools.lru_cache(maxsize=4096)(_quoted)


def _escape(found: re.Match[str]) -> str:
    char = found.group()
    if char in _ESCAPES:
        return _ESCAPES[char]
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
