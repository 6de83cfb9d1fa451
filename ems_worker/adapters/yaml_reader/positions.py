"""Positions in the text of a document: the lines and columns of keys and values."""

from collections.abc import Container
from typing import Final

from ems_worker.core.language.quotes import Location

# Line and column, from 1.
Position = tuple[int, int]

START: Final = (1, 1)


class Positions:
    """The positions of the keys and values at the wanted locations, as far as a reader has found them."""

    def __init__(self, wanted: Container[Location]) -> None:
        self.wanted = wanted
        self._keys: dict[Location, Position] = {}
        self._values: dict[Location, Position] = {}

    def add_key(self, location: Location, position: Position) -> None:
        """Records the position of a key."""
        self._keys.setdefault(location, position)

    def add_value(self, location: Location, position: Position) -> None:
        """Records the position of a value, which is also that of its key if it has none: in lists, and at the top."""
        self._values.setdefault(location, position)
        self._keys.setdefault(location, position)

    def nearest(self, location: Location, *, value: bool) -> Position:
        """The position of a key, or of its value, or of the nearest key above if the document doesn't have it."""
        positions = self._values if value else self._keys
        if location in positions:
            return positions[location]
        while location and location not in self._keys:
            location = location[:-1]
        return self._keys.get(location, START)
