"""Bytes to plain data, safely: plans and base configurations in YAML or JSON, and where in the text each value is.

YAML scalars mean what YAML 1.2's core schema says. Plans have no anchors, aliases, tags or merge keys; a base
configuration may have anchors. Duplicate keys, NaN and infinities are errors in both, in JSON too.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ems_worker import errors
from ems_worker.adapters.yaml_reader import json_text, limits, yaml_text
from ems_worker.core import canonical
from ems_worker.core.language import problems

Position = tuple[int, int]

_START: Final = (1, 1)
_ENCODING: Final = "utf-8-sig"
_JSON: Final = re.compile(r"\s*+[{\[]")


@dataclass(frozen=True, slots=True)
class Document:
    """What a text says, and its bytes, by which places are found when something is wrong."""

    data: dict[str, canonical.JSON]
    format: Literal["yaml", "json"]
    raw: bytes = dataclasses.field(repr=False)

    @property
    def text(self) -> str:
        """The text, made anew each time: one with emojis in it takes four times its bytes."""
        return self.raw.decode(_ENCODING)

    def locate(self, place: problems.Place, *, value: bool = False) -> Position:
        """Line and column, from 1, of the key (or list element) at this place, or with `value` of what it holds.

        The nearest place above stands for one that isn't there.
        """
        return self.locate_all([place], values=value)[place]

    def locate_all(self, places: Iterable[problems.Place], *, values: bool = False) -> dict[problems.Place, Position]:
        """The positions of many places, in one reading of the text."""
        module = json_text if self.format == "json" else yaml_text
        wanted = list(places)
        keys: dict[problems.Place, Position] = {}
        held: dict[problems.Place, Position] = {}
        above = {place[:length] for place in wanted for length in range(len(place) + 1)}
        module.positions(self.text, above, keys, held)
        return {place: _nearest(place, held if values else keys, keys) for place in wanted}


def read_plan(data: bytes) -> Document:
    """Reads a plan.

    Raises PlanRejected with line and column for text that says no plan, Unreadable for no text at all.
    """
    return _read(data, anchors=False)


def read_base(data: bytes) -> Document:
    """Reads a base configuration: anchors are resolved, and scalars that YAML 1.1 and 1.2 read differently are errors.

    Raises PlanRejected with line and column, Unreadable for no text at all.
    """
    return _read(data, anchors=True)


def place(found: Sequence[errors.Problem], document: Document) -> tuple[errors.Problem, ...]:
    """The problems with line and column filled in, in the order of the text."""
    keys = document.locate_all(problem.location for problem in found if problem.on_key)
    values = document.locate_all((problem.location for problem in found if not problem.on_key), values=True)
    placed = []
    for problem in found:
        if problem.line is None:
            line, column = (keys if problem.on_key else values)[problem.location]
            placed.append(dataclasses.replace(problem, line=line, column=column))
        else:
            placed.append(problem)
    return tuple(sorted(placed, key=lambda problem: (problem.line or 0, problem.column or 0)))


def _read(data: bytes, *, anchors: bool) -> Document:
    if len(data) > limits.MOST_BYTES:
        raise errors.Unreadable(f"{len(data):,} bytes; a plan or configuration has at most {limits.MOST_BYTES:,}")
    try:
        text = data.decode(_ENCODING)
    except UnicodeDecodeError as error:
        raise errors.Unreadable(f"this is not text in UTF-8: {error.reason} at byte {error.start}") from error
    if _JSON.match(text):
        read = json_text.read(text, len(data))
        if read is not None:
            return Document(read, "json", data)
    return Document(yaml_text.read(text, len(data), anchors=anchors), "yaml", data)


def _nearest(
    wanted: problems.Place, positions: dict[problems.Place, Position], keys: dict[problems.Place, Position]
) -> Position:
    if wanted in positions:
        return positions[wanted]
    while wanted and wanted not in keys:
        wanted = wanted[:-1]
    return keys.get(wanted, _START)
