"""What strangers write to have a terminal do something, and how to see that it would."""

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

# What rich draws with: styles in sixteen colours or by number, and for a bar moves of the cursor.
_OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K")


def found(shown: str) -> list[str]:
    """The characters in it that no terminal should get, but for line ends."""
    return [
        one
        for one in shown
        if one != "\n"
        and (
            unicodedata.category(one) in ("Cc", "Cs", "Zl", "Zp")
            or (unicodedata.category(one) == "Cf" and one not in "\u200c\u200d")
        )
    ]


def without_ours(shown: str) -> str:
    """What is left of a terminal's bytes without our own styles and moves.

    A bar goes back to where its line begins by a carriage return: before an escape, or there already.
    """
    assert COLOR.removesuffix("red") not in shown
    return _OURS.sub("", re.sub(r"(?<=\n)\r|\r(?=\x1b\[)", "", shown))
