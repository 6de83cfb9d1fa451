"""What strangers write to have a terminal do something, and how to see that it would."""

import re
import unicodedata

CLIPBOARD = "\x1b]52;c;ZXZpbA==\x07"
TITLE = "\x1b]0;pwned\x1b\\"
LINK = "\x1b]8;;http://evil.example\x1b\\here\x1b]8;;\x1b\\"
COLOR = "\x1b[31;5mred\x1b[0m"
SCREEN = "\x1b[2J\x1b[H"
OVERWRITE = "failed\rcompleted\b\b"
EIGHT_BIT = "\x9b31m\x9d52;c;ZXZpbA==\x9c"
BIDI = "\u202egnp.exe\u202c\u2066x\u2069\u200f\u061c"
INVISIBLE = "re\u200bef\ufeff\u00ad\U000e0041"
LINES = "a\u2028b\u2029c\x0bd\x0ce\x85f"
ALL = " ".join((CLIPBOARD, TITLE, LINK, COLOR, SCREEN, OVERWRITE, EIGHT_BIT, BIDI, INVISIBLE, LINES, "\x00\x7f"))

# How rich draws: colours and, for a bar, moves of the cursor.
_STYLE = re.compile(r"\x1b\[[0-9;]*m")
_BAR = re.compile(r"\x1b\[\?25[lh]|\x1b\[1A|\x1b\[2K|\r")


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


def unstyled(shown: str) -> str:
    """Without styles, which have to be rich's: of the hostile words above none comes out as one."""
    return _STYLE.sub("", shown)


def without_bar(shown: str) -> str:
    """Without what moves a bar."""
    return _BAR.sub("", shown)
