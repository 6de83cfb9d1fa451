"""Text that makes a terminal do something, and functions that detect it."""

import re
import unicodedata

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
TITLE = "\x1b]0;pwned\x1b\\"
LINK = "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\"
COLOR = "\x1b[38;5;201mred"
SCREEN = "\x1b[2J\x1b[H"
OVERWRITE = "failed\rcompleted\b\b"
EIGHT_BIT = "\x9b31m\x9d52;c;ZXZpbA==\x9c"
BIDI = "\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c"
INVISIBLE = "re\u200bef\ufeff\u00ad\U000e0041"
LINES = "a\u2028b\u2029c\x0bd\x0ce\x85f"
ALL = " ".join((CLIPBOARD, TITLE, LINK, COLOR, SCREEN, OVERWRITE, EIGHT_BIT, BIDI, INVISIBLE, LINES, "\x7f"))
WITNESS = "ZXZpbA=="

# The sequences that rich draws with: styles in sixteen colours or by number, and cursor movements for a bar; and those
# of a live screen, which goes to the beginning of each line by its number.
_OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\x1b\[\?1049[lh]|\x1b\[[0-9]+;1H|\x1b\[K|\x1b\[J")


def dangerous_characters(shown: str) -> list[str]:
    """The characters that should not reach a terminal. Line ends may."""
    return [
        character
        for character in shown
        if character != "\n"
        and (
            unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
            or (unicodedata.category(character) == "Cf" and character not in "\u200c\u200d")
        )
    ]


def without_ours(shown: str) -> str:
    """The output of a terminal without our own styles and cursor movements.

    A bar returns to the beginning of its line by a carriage return: at the beginning already, or before an escape.
    """
    assert COLOR.removesuffix("red") not in shown
    return _OURS.sub("", re.sub(r"(?<=\n)\r|\r(?=\x1b\[)", "", shown))
