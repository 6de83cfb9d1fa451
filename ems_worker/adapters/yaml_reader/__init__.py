"""Reads plans and base configurations from YAML or JSON, safely, and finds the position of each value in the text.

YAML scalars have the meaning of YAML 1.2's core schema. Anchors, aliases, tags and merge keys are errors in a plan; a
base configuration may have anchors. Duplicate keys, NaN and infinities are errors in both, in JSON as well.
"""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from ems_worker import errors
from ems_worker.adapters.yaml_reader import json_text, limits, yaml_text
from ems_worker.adapters.yaml_reader.positions import Position, Positions
from ems_worker.core import canonical
from ems_worker.core.language import aliases, quotes
from ems_worker.core.language.quotes import Location

_ENCODING: Final = "utf-8-sig"
_JSON: Final = re.compile(r"\s*+[{\[]")


@dataclass(frozen=True, slots=True)
class Document:
    """The data of a text, and its bytes, which are read again to find the positions of problems."""

    data: dict[str, canonical.JSON]
    format: Literal["yaml", "json"]
    raw: bytes = dataclasses.field(repr=False)

    @property
    def text(self) -> str:
        """The text, decoded on each access: a text with emojis takes four times the memory of its bytes."""
        return self.raw.decode(_ENCODING)

    def locate(self, location: Location, *, value: bool = False) -> Position:
        """Line and column, from 1, of the key or list element at this location; with `value`, those of its value.

        If the location doesn't exist, the position is that of the nearest one above it.
        """
        return self.locate_all([location], values=value)[location]

    def locate_all(self, locations: Iterable[Location], *, values: bool = False) -> dict[Location, Position]:
        """The positions of several locations. The text is read once."""
        module = json_text if self.format == "json" else yaml_text
        wanted = list(locations)
        positions = Positions({each[:length] for each in wanted for length in range(len(each) + 1)})
        module.locate(self.text, positions)
        return {each: positions.nearest(each, value=values) for each in wanted}


def read_plan(data: bytes) -> Document:
    """Reads a plan.

    Raises PlanRejected with line and column if the text is not a plan, and Unreadable if the data is not text.
    """
    return _read(data, anchors=False)


def read_base(data: bytes) -> Document:
    """Reads a base configuration: anchors are resolved, and scalars that YAML 1.1 and 1.2 read differently are errors.

    Raises PlanRejected with line and column, and Unreadable if the data is not text.
    """
    return _read(data, anchors=True)


def with_positions(problems: Sequence[errors.Problem], document: Document) -> tuple[errors.Problem, ...]:
    """The problems with their lines and columns, in the order of the text; those of another file come first."""
    problems = [_as_written(problem, document) for problem in problems]
    keys = document.locate_all(problem.location for problem in problems if problem.on_key)
    values = document.locate_all((problem.location for problem in problems if not problem.on_key), values=True)
    located = []
    for problem in problems:
        if problem.line is None:
            line, column = (keys if problem.on_key else values)[problem.location]
            located.append(dataclasses.replace(problem, line=line, column=column))
        else:
            located.append(problem)
    return tuple(sorted(located, key=lambda problem: (problem.file is None, problem.line or 0, problem.column or 0)))


def _as_written(problem: errors.Problem, document: Document) -> errors.Problem:
    """The problem with the name of its key that the plan has."""
    location = aliases.as_written(problem.location, document.data)
    if problem.file is not None or location == problem.location:
        return problem
    return dataclasses.replace(problem, location=location, path=quotes.path(location))


def _read(data: bytes, *, anchors: bool) -> Document:
    if len(data) > limits.MAX_BYTES:
        raise errors.Unreadable(
            f"this has {len(data):,} bytes; a plan or configuration has at most {limits.MAX_BYTES:,}"
        )
    try:
        text = data.decode(_ENCODING)
    except UnicodeDecodeError as error:
        raise errors.Unreadable(f"this is not text in UTF-8: {error.reason} at byte {error.start}") from error
    if _JSON.match(text):
        parsed = json_text.read(text, len(data))
        if parsed is not None:
            return Document(parsed, "json", data)
    return Document(yaml_text.read(text, len(data), anchors=anchors), "yaml", data)
