"""What `ems ls` prints for people: a line an experiment, and one for all experiments of a group."""

import collections
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ems_worker.cli import exits, numbers, shell, statuses, tables
from ems_worker.cli.fitting import Column
from ems_worker.core.language import suggestions
from ems_worker.core.lifecycle.experiment import ENDED, ExperimentState
from ems_worker.terminal import text

Document = dict[str, Any]


@dataclass(slots=True)
class Line:
    """An experiment, or the experiments of a group, counted together. The newest of them gives `status`."""

    status: Document
    group: str | None = None
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    total: int = 0
    done: float = 0.0
    publishers: set[str | None] = field(default_factory=set)

    def add(self, status: Document) -> None:
        self.states[status["state"]] += 1
        self.counts.update(status["counts"])
        self.total += status["total"]
        self.done += status["progress"] * status["total"]
        self.publishers.add(status.get("publisher"))

    @property
    def progress(self) -> float:
        return self.done / self.total if self.total else 0.0

    @property
    def folded(self) -> bool:
        return self.group is not None and self.states.total() > 1


@dataclass(frozen=True, slots=True)
class Field:
    """A column of the list: its cells, what sorts by it, and when it is left out if nobody asked for it."""

    column: Column
    about: str
    cell: Callable[[Line], tables.Cell]
    sort: Callable[[Line], Any]
    usual: bool = True
    rare: bool = False


def _plain(key: str) -> Callable[[Line], Any]:
    """A text of the status that isn't that of a group of several."""
    return lambda line: None if line.folded else line.status.get(key)


def _id(line: Line) -> str:
    return f"{line.group}/" if line.folded else line.status["experiment_id"]


def _state(line: Line) -> str:
    """Its state, or how many experiments are in which state: first the open ones, then those that didn't complete."""
    if not line.folded:
        return str(line.status["state"])
    return _by_state(line)


def _by_state(line: Line) -> str:
    order = sorted(line.states, key=lambda state: (state in ENDED, state == ExperimentState.COMPLETED, state))
    return ", ".join(f"{line.states[state]:,} {state}" for state in order)


def _name(line: Line) -> str:
    return numbers.counted(line.states.total(), "experiment") if line.folded else line.status["experiment_name"]


def _group(line: Line) -> str | None:
    """The group of a single experiment: that of several is their id."""
    return None if line.folded else line.group


def _publisher(line: Line) -> str | None:
    return next(iter(line.publishers)) if len(line.publishers) == 1 else None


def _as_status(line: Line) -> Document:
    return {"counts": line.counts}


def _stalled(line: Line) -> str | None:
    """Why an open experiment makes no progress. The reason for an experiment's end is left to `ems show`."""
    return None if line.folded or line.status["finished_at"] is not None else statuses.reason(line.status)


def _moment(key: str) -> Callable[[Line], str | None]:
    return lambda line: None if line.folded or not line.status.get(key) else tables.moment(line.status[key])


def _tags(line: Line) -> str | None:
    return None if line.folded else ", ".join(line.status["tags"]) or None


def _eta(line: Line) -> str | None:
    return None if line.folded else statuses.time_left(line.status) or None


# In the order of the columns; `rare` ones are there only if they say something.
FIELDS: Final = {
    one.column.title: one
    for one in (
        Field(Column("id", left=True), "its id; of a group, its name and a slash", _id, _id),
        Field(Column("state", cut=12, left=True), "its state; of a group, how many are in which", _state, _state),
        Field(
            Column("progress", drop=1),
            "the share of its work that is done",
            lambda line: f"{line.progress:.0%}",
            lambda line: line.progress,
        ),
        Field(Column("jobs", drop=3), "its jobs", lambda line: f"{line.total:,}", lambda line: line.total),
        Field(
            Column("waiting", drop=4),
            "jobs that wait for metrics which are computed elsewhere",
            lambda line: statuses.waiting(_as_status(line)) or None,
            lambda line: line.counts["awaiting_metrics"],
            rare=True,
        ),
        Field(
            Column("problems", drop=2, left=True),
            "jobs that ended otherwise than completed",
            lambda line: statuses.problems(_as_status(line)) or None,
            lambda line: statuses.ended(_as_status(line)) - line.counts["completed"],
        ),
        Field(Column("group", drop=7, left=True), "its group", _group, lambda line: line.group, rare=True),
        Field(
            Column("publisher", drop=9, left=True), "who sent its plan, where known", _publisher, _publisher, rare=True
        ),
        Field(
            Column("created", drop=8, left=True),
            "when its plan was accepted",
            lambda line: tables.moment(line.status["created_at"]),
            lambda line: line.status["created_at"],
        ),
        Field(Column("name", drop=6, cut=16, left=True), "its name", _name, _name),
        Field(Column("tags", left=True), "its tags", _tags, _tags, usual=False),
        Field(Column("round"), "its round", _plain("round"), _plain("round"), usual=False),
        Field(Column("eta"), "the time until its last job ends", _eta, _plain("eta_seconds"), usual=False),
        Field(
            Column("started", left=True), "when it started", _moment("started_at"), _plain("started_at"), usual=False
        ),
        Field(
            Column("finished", left=True), "when it ended", _moment("finished_at"), _plain("finished_at"), usual=False
        ),
        Field(
            Column("reason", drop=5, cut=20, left=True),
            "why an open experiment makes no progress",
            _stalled,
            _stalled,
            rare=True,
        ),
    )
}
NAMES: Final = tuple(FIELDS)


@dataclass(frozen=True, slots=True)
class Listing:
    """How experiments are listed. `columns`: names of columns; None for the usual ones. `sort`: a column, with - before
    it downwards; None for the newest first. `fold`: whether a group is one line. `limit`: 0 for all lines."""

    columns: Sequence[str] | None = None
    sort: str | None = None
    fold: bool = True
    limit: int = 0


def listing(columns: str | None, sort: str | None, *, fold: bool, limit: int) -> Listing:
    """From the options of the command. Raises exits.Misused if there is no such column."""
    names = None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    for name in (*(names or ()), *([] if sort is None else [sort.removeprefix("-")])):
        if name not in FIELDS:
            similar = suggestions.nearest(name, NAMES)
            hint = f"; did you mean {similar}?" if similar else ""
            raise exits.Misused(f"there is no column {name!r}{hint}; there are {', '.join(NAMES)}")
    return Listing(names or None, sort, fold, limit)


class Lines:
    """The lines of a list, in the order of its first experiments. Of a group only the newest experiment is kept."""

    def __init__(self, *, fold: bool = True) -> None:
        self.found: list[Line] = []
        self._fold = fold
        self._by_group: dict[str, Line] = {}

    def add(self, status: Document) -> None:
        group = status["group"]
        line = self._by_group.get(group) if self._fold and group else None
        if line is None:
            line = Line(status, group)
            self.found.append(line)
            if group:
                self._by_group[group] = line
        line.add(status)


def lines(listed: Iterable[Document], *, fold: bool = True) -> list[Line]:
    """The lines of a whole list."""
    made = Lines(fold=fold)
    for status in listed:
        made.add(status)
    return made.found


def show(found: Sequence[Line], how: Listing) -> None:
    """Prints lines as a table."""
    if not found:
        shell.say("no experiments")
        return
    chosen = list(found)
    if how.sort is not None:
        key, down = FIELDS[how.sort.removeprefix("-")].sort, how.sort.startswith("-")
        known = [line for line in chosen if key(line) is not None]
        # What isn't known comes last, whichever way.
        chosen = [*sorted(known, key=key, reverse=down), *(line for line in chosen if key(line) is None)]
    shown = chosen[: how.limit or None]
    if how.columns is not None:
        fields = [FIELDS[name] for name in how.columns]
        columns = [Column(one.column.title, left=one.column.left) for one in fields]
    else:
        fields = [one for one in FIELDS.values() if one.usual and not (one.rare and _says_nothing(one, shown))]
        columns = [one.column for one in fields]
    tables.show(
        columns,
        [[one.cell(line) for one in fields] for line in shown],
        instead="--columns, or a wider window",
    )
    if len(shown) < len(chosen):
        tables.note(f"... and {numbers.counted(len(chosen) - len(shown), 'more line')}: without -n they are all listed")
    if any(line.folded for line in shown):
        tables.note("NAME/ is a group of experiments: ems show NAME")


def _says_nothing(one: Field, shown: Sequence[Line]) -> bool:
    """Whether a column is empty, or has the group that all of them are of."""
    cells = {one.cell(line) for line in shown}
    return cells == {None} or (one.column.title == "group" and len(cells) == 1 and len(shown) > 1)


def show_group(members: Sequence[Document], limit: int) -> None:
    """Prints the experiments of a group, after what they come to together."""
    [whole] = lines([{**status, "group": status["group"] or "-"} for status in members[:1]])
    for status in members[1:]:
        whole.add(status)
    ended = f"{statuses.ended(_as_status(whole)):,} of {numbers.counted(whole.total, 'job')} ended"
    experiments = numbers.counted(len(members), "experiment")
    shell.out(text.line(f"group {whole.group}: {experiments}: {_by_state(whole)}"))
    shell.out(f"  {', '.join(filter(None, (ended, statuses.problems(_as_status(whole)))))}")
    shell.out("")
    show(lines(members, fold=False), Listing(limit=limit))
