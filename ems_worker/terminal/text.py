"""Cleans text from other people: what remains is visible, stays in its place and controls nothing. Pure."""

import functools
import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
# Controls, formats (bidi controls, zero-width characters, tags), surrogates, line and paragraph separators, private use
# and unassigned characters: they have no glyph, or an unpredictable one.
_WITHOUT_GLYPH: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# These count as letters and marks but are drawn as nothing, so that two different names would look equal.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_MARKS: Final = frozenset({"Mn", "Me"})
# Writing systems need three or four marks on a letter; dozens would cover the lines above and below.
_MAX_MARKS: Final = 6
# Persian and the scripts of India need joiners for spelling, and emoji are joined by them. Between European letters,
# whose blocks come first, joiners are only invisible.
_JOINERS: Final = "\u200c\u200d"
_FIRST_JOINED: Final = "\u0590"
_JOINED: Final = ("L", "M", "So", "Sk")
_NOT_PLAIN: Final = re.compile(r"[^\n -~]")


def clean(text: str) -> str:
    """The text with every control or deceptive character replaced. Line ends are kept."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_cleaned(text))


def line(text: str) -> str:
    """Like `clean`, but on one line: for table cells, and wherever a second line would look like one of ours."""
    return clean(text).replace("\n", REPLACEMENT)


def escaped(json: str) -> str:
    """An equivalent JSON text, with an escape for every character that `clean` would replace."""
    return _NOT_PLAIN.sub(_escape, json)


def _cleaned(text: str) -> list[str]:
    cleaned: list[str] = []
    marks = 0
    previous = ""
    for character in text:
        marks = marks + 1 if _category(character) in _MARKS else 0
        if character == "\n" or (character in _JOINERS and _can_be_joined(previous)):
            cleaned.append(character)
        elif character == "\t":
            cleaned.append(" ")
        else:
            cleaned.append(REPLACEMENT if marks > _MAX_MARKS or not _has_glyph(character) else character)
        previous = character
    return cleaned


def _can_be_joined(previous: str) -> bool:
    return previous >= _FIRST_JOINED and _category(previous).startswith(_JOINED)


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    if _has_glyph(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@functools.lru_cache(4096)
def _has_glyph(character: str) -> bool:
    return _category(character) not in _WITHOUT_GLYPH and character not in _INVISIBLE


@functools.lru_cache(4096)
def _category(character: str) -> str:
    return unicodedata.category(character)
