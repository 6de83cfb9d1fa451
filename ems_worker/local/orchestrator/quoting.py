"""Values inside the script of `sh -c`: text for the shell, whatever a plan has written into them."""

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

_SHELLS: Final = frozenset({"sh", "bash", "dash", "zsh", "ksh", "ash", "mksh", "rbash"})
# What no shell gives a meaning to, wherever it stands.
_PLAIN: Final = re.compile(r"[A-Za-z0-9_@%+=:,./-]+")
# After these it takes a whole shell to know what is quoted, or what is read twice: substitutions, here-documents,
# comments, arithmetic, $'...'.
_UNCLEAR: Final = re.compile(r"`|\$[(\[{']|\(\(|(?<!<)<<(?!<)|#|\beval\b")
# A substitution without quotes that has ended changes nothing.
_CLOSED: Final = re.compile(r"(?<!\\)\$\([^()'\"`\\#<]*\)")
_WITH_VALUE: Final = ("--rcfile", "--init-file")


class UnquotableError(ValueError):
    """A value stands where it can't be quoted."""


def scripts(words: Sequence[str]) -> frozenset[int]:
    """The positions of the words that a shell gets as its script: after `-c` and the options that follow it."""
    shells = (number for number, word in enumerate(words) if Path(word).name in _SHELLS)
    return frozenset(found for number in shells if (found := _script(words, number + 1)) is not None)


def _script(words: Sequence[str], at: int) -> int | None:
    wanted = False
    while at < len(words):
        word = words[at]
        if word in ("-", "--"):
            return at + 1 if wanted and at + 1 < len(words) else None
        if len(word) < 2 or word[0] not in "-+":
            return at if wanted else None
        if word.startswith("--"):
            at += word in _WITH_VALUE
        else:
            wanted = wanted or (word[0] == "-" and "c" in word)
            at += word.count("o") + word.count("O")  # -o pipefail
        at += 1
    return None


def quoted(words: Sequence[str], before: str) -> str:
    """Words as text of a script, in which `before` precedes them. Quotes that are open there are closed around them.

    Raises UnquotableError where that isn't possible, unless nothing needs quoting.
    """
    if all(_PLAIN.fullmatch(word) for word in words):
        return " ".join(words)
    mark = _open_quote(_CLOSED.sub("", before))
    return f"{mark}{shlex.join(words)}{mark}"


def _open_quote(before: str) -> str:
    """The quote that is open at the end of a script's beginning, or nothing."""
    mark, escaped = "", False
    for character in before:
        if escaped:
            escaped = False
        elif character == "\\" and mark != "'":
            escaped = True
        elif character in "'\"" and mark in ("", character):
            mark = "" if mark else character
    if escaped or before.endswith("$") or _UNCLEAR.search(before):
        raise UnquotableError
    return mark
