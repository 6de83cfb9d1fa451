"""Suggestions for misspelt names, within a budget: comparing texts takes time, and a plan may misspell everything."""

import difflib
from collections.abc import Iterable
from itertools import islice
from typing import Final

# Among more names than these the search would take long, and the nearest would be near by chance.
MAX_CANDIDATES: Final = 1000
# Longer names are not compared.
_MAX_NAME: Final = 200
# The pairs of characters that all searches for one plan may compare: a second or two at most.
MAX_PAIRS: Final = 10_000_000


class SearchBudget:
    """The work that searches for similar names may still do, in pairs of characters. Each plan has its own budget."""

    __slots__ = ("_pairs",)

    def __init__(self, pairs: int = MAX_PAIRS) -> None:
        self._pairs = pairs

    def nearest(self, name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
        """The known name that is most similar; None if none is similar or the search would take too long."""
        if self._pairs < 0:
            return None
        candidates = list(islice(known, MAX_CANDIDATES + 1))
        if len(name) > _MAX_NAME or len(candidates) > MAX_CANDIDATES:
            return None
        by_lower: dict[str, str] = {}
        for candidate in candidates:
            if len(candidate) <= _MAX_NAME:
                by_lower.setdefault(candidate.lower(), candidate)
        if not self._spend(len(name) * sum(map(len, by_lower))):
            return None
        matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=cutoff)
        return by_lower[matches[0]] if matches else None

    def similarity(self, name: str, other: str) -> float:
        """From 0 to 1; also 0 once the budget is spent."""
        if not self._spend(len(name) * len(other)):
            return 0.0
        return difflib.SequenceMatcher(None, name, other).ratio()

    def _spend(self, pairs: int) -> bool:
        self._pairs -= pairs
        return self._pairs >= 0


def nearest(name: str, known: Iterable[str]) -> str | None:
    """`SearchBudget.nearest` for a single search among few names."""
    return SearchBudget().nearest(name, known)
