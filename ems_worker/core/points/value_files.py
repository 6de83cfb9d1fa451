"""Values in CSV files: a plan names the files, and whoever publishes it puts their values in the place of the names.

An axis `{file: values.csv, column: k}` becomes `{values: [...]}`, and `runs: {file: design.csv}` a list with an entry
for each row. A worker never reads a file that a plan names.
"""

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import paths, quotes
from ems_worker.core.language.axis_kinds import COLUMN, FILE
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location
from ems_worker.core.points import scalars

JSON = canonical.JSON

SUFFIX: Final = "run_id_suffix"
# The columns of a table of runs that are labels; all others but the suffix are paths.
LABEL: Final = "label:"
_SPACES: Final = ("variables", "parameter_space", "parameters")
_RUNS: Final = "runs"


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a plan names, at the location of its name. Without a column it is a table of runs."""

    location: Location
    file: str
    column: str | None = None


def references(data: Mapping[str, object]) -> list[Reference]:
    """The files that a plan names, in its order."""
    found = [reference for key in _SPACES for reference in _axes(data.get(key), (key,))]
    runs = data.get(_RUNS)
    if isinstance(runs, Mapping) and isinstance(name := runs.get(FILE), str):
        found.append(Reference((_RUNS, FILE), name))
    return found


def _axes(spec: object, location: Location) -> Iterator[Reference]:
    if isinstance(spec, list):
        for index, item in enumerate(spec):
            yield from _axes(item, (*location, index))
    elif isinstance(spec, Mapping):
        name, column = spec.get(FILE), spec.get(COLUMN)
        if isinstance(name, str) and isinstance(column, str):
            yield Reference((*location, FILE), name, column)
            return
        for key, inner in spec.items():
            yield from _axes(inner, (*location, key))


def inlined(data: Mapping[str, object], contents: Mapping[str, bytes], problems: Problems) -> dict[str, Any]:
    """The plan with these files' values in the place of their names; reports what is wrong with a file, whose name
    stays."""
    result = cast("dict[str, Any]", paths.copied(dict(data)))
    tables: dict[str, _Table | None] = {}
    for reference in references(data):
        if reference.file not in contents:
            continue
        if reference.file not in tables:
            tables[reference.file] = _Table.read(reference, contents[reference.file], problems)
        table = tables[reference.file]
        if table is None:
            continue
        table, reported = replace(table, reference=reference), len(problems)
        if reference.column is None:
            problems.keys(result[_RUNS], (_RUNS,), (FILE,))
            runs = table.runs(problems)
            if len(problems) == reported:
                result[_RUNS] = runs
            continue
        values = table.values(reference.column, problems)
        if len(problems) == reported:
            axis: Any = result
            for step in reference.location[:-1]:
                axis = axis[step]
            del axis[FILE], axis[COLUMN]
            axis["values"] = values
    return result


@dataclass(frozen=True, slots=True)
class _Table:
    """The rows of a file, each with its line, and the names of their columns."""

    reference: Reference
    names: list[str]
    rows: list[tuple[int, list[str]]]

    @classmethod
    def read(cls, reference: Reference, content: bytes, problems: Problems) -> "_Table | None":
        try:
            reader = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader if row]
        except UnicodeDecodeError:
            cls(reference, [], []).report("it is not UTF-8 text", problems)
            return None
        except csv.Error as error:
            cls(reference, [], []).report(f"it is not a table of comma-separated values: {error}", problems)
            return None
        names = rows[0][1] if rows else []
        table = cls(reference, names, rows[1:])
        if not table.rows:
            table.report("it needs a line with the names of its columns, and a line of values at least", problems)
            return None
        repeated = next((name for index, name in enumerate(names) if name in names[:index]), None)
        if repeated is not None or "" in names:
            what = f"two columns are named {quotes.brief(repeated)}" if repeated else "a column has no name"
            table.report(what, problems, line=rows[0][0])
            return None
        for line, row in table.rows:
            if len(row) != len(names):
                table.report(f"{len(row)} values for {len(names)} columns", problems, line=line)
                return None
        return table

    def report(self, message: str, problems: Problems, *, line: int | None = None, hint: str | None = None) -> None:
        """Reports what is wrong with the file, at its name in the plan."""
        where = f", line {line}" if line is not None else ""
        text = f"{quotes.brief(self.reference.file)}{where}: {message}"
        problems.add("bad_table", self.reference.location, text, hint)

    def values(self, column: str, problems: Problems) -> list[JSON]:
        """The values of a column, in the order of the rows."""
        if column not in self.names:
            hint = problems.nearest(column, self.names)
            self.report(f"it has no column {quotes.brief(column)}", problems, hint=hint)
            return []
        at = self.names.index(column)
        values: list[JSON] = []
        for line, row in self.rows:
            if row[at]:
                values.append(self._value(row[at], line, problems))
            else:
                self.report(f"the column {quotes.brief(column)} is empty here", problems, line=line)
        return values

    def runs(self, problems: Problems) -> list[JSON]:
        """An entry of `runs` for each row. An empty cell overrides nothing."""
        return [self._run(line, row, problems) for line, row in self.rows]

    def _run(self, line: int, row: list[str], problems: Problems) -> dict[str, JSON]:
        entry: dict[str, JSON] = {}
        labels: dict[str, JSON] = {}
        overrides: dict[str, JSON] = {}
        for name, cell in zip(self.names, row, strict=True):
            if not cell:
                continue
            if name == SUFFIX:
                entry[SUFFIX] = cell
            elif name.startswith(LABEL):
                labels[name.removeprefix(LABEL)] = cell
            else:
                overrides[name] = self._value(cell, line, problems)
        if labels:
            entry["labels"] = labels
        return {**entry, "params_override": overrides}

    def _value(self, cell: str, line: int, problems: Problems) -> JSON:
        """A cell's value, as a plan would read it without quotes."""
        try:
            return scalars.read(cell)
        except scalars.NotFiniteError:
            self.report(f"{quotes.brief(cell)} is not a finite number of 64 bits", problems, line=line)
            return None
