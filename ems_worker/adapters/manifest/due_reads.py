"""The queries of reads.sql about runs that are to start, each with the names of its columns: see reads.py."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from ems_worker.adapters.manifest.reads import Read


class DueRow(NamedTuple):
    """A pending run that is due. `is_new`: it is the first of its job, and nothing else is known of it."""

    point: int
    replicate: int
    seed: int
    due_ms: int
    is_new: int


class DueOfRow(NamedTuple):
    """The same of one of several experiments."""

    experiment: int
    point: int
    replicate: int
    seed: int
    due_ms: int
    is_new: int


class DueCountRow(NamedTuple):
    """How many runs of an experiment are due, and when the first pending one is."""

    experiment: int
    due: int
    next_ms: int | None


class PointOfRow(NamedTuple):
    """A point's parameters, where those of several experiments are read."""

    experiment: int
    point: int
    params: str
    run_id_suffix: str | None
    labels: str | None


DUE = Read("due", DueRow)
DUE_OF = Read("due_of", DueOfRow)
DUE_COUNTS = Read("due_counts", DueCountRow)
POINTS_OF = Read("points_of", PointOfRow)

_ALL: tuple[Read[tuple[object, ...]], ...] = (DUE, DUE_OF, DUE_COUNTS, POINTS_OF)
# The columns of each query's rows, by its name.
COLUMNS: Mapping[str, tuple[str, ...]] = MappingProxyType({read.name: read.columns for read in _ALL})
