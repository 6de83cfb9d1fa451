"""Text of others, made harmless: what is left can be seen, stays where it is put, and commands nothing. Pure."""

import functools
import re
import unicodedata
from typing import Final

REPLACEMENT: Final = "\N{REPLACEMENT CHARACTER}"
# Controls, formats (bidi controls, zero-width characters, tags), halves of surrogate pairs, line and paragraph
# separators, private use and what Unicode hasn't assigned: each has no picture, or one that nobody can foresee.
_WITHOUT_PICTURE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Letters and marks by their category that are drawn as nothing, and so make two names look like one.
_INVISIBLE: Final = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")
_MARKS: Final = frozenset({"Mn", "Me"})
# Scripts need three or four on a letter; dozens cover the lines above and below.
_MOST_MARKS: Final = 6
# Persian and the scripts of India spell with them, emoji are joined by them. Between letters of Europe, whose blocks
# come first, they are only invisible.
_JOINERS: Final = "\u200c\u200d"
_FIRST_JOINED: Final = "\u0590"
_JOINED: Final = ("L", "M", "So", "Sk")
_NOT_PLAIN: Final = re.compile(r"[^\n -~]")


def clean(text: str) -> str:
    """The text with a replacement character for each one that commands or deceives; its line ends stay."""
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return "".join(_seen(text))


def line(text: str) -> str:
    """The same in one line: for cells of tables, and wherever a line of somebody else's would pass for ours."""
    return clean(text).replace("\n", REPLACEMENT)


def escaped(json: str) -> str:
    """A JSON text that says the same, with an escape for each character that `clean` would replace."""
    return _NOT_PLAIN.sub(_escape, json)


def _seen(text: str) -> list[str]:
    seen: list[str] = []
    marks = 0
    before = ""
    for character in text:
        marks = marks + 1 if _category(character) in _MARKS else 0
        if character == "\n" or (character in _JOINERS and _joins(before)):
            seen.append(character)
        elif character == "\t":
            seen.append(" ")
        else:
            seen.append(REPLACEMENT if marks > _MOST_MARKS or not _has_picture(character) else character)
        before = character
    return seen


def _joins(before: str) -> bool:
    return before >= _FIRST_JOINED and _category(before).startswith(_JOINED)


def _escape(found: re.Match[str]) -> str:
    character = found[0]
    if _has_picture(character):
        return character
    units = character.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


@functools.lru_cache(4096)
def _has_picture(character: str) -> bool:
    return _category(character) not in _WITHOUT_PICTURE and character not in _INVISIBLE


@functools.lru_cache(4096)
def _category(character: str) -> str:
    return unicodedata.category(character)
