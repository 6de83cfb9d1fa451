"""Statements that write only the columns which usually change leave a run as the statement for all columns would."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from itertools import combinations, product
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import asdict, replace

from ems_worker.adapters.manifest import Manifest, reads, rows
from ems_worker.adapters.manifest.queries import READS, WRITES
from ems_worker.core.lifecycle.run import ErrorKind, Run, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import RunState
from tests.support import manifests

# Two values of each field that a change can have, besides the state: as a run is created, and another one.
VALUES: dict[str, tuple[Any, Any]] = {
    "current": (True, False),
    "due_ms": (0, 5),
    "submitted_ms": (None, 11),
    "started_ms": (None, 12),
    "finished_ms": (None, 13),
    "elapsed_ms": (0, 14),
    "stop_reason": (None, StopReason.TIMEOUT),
    "error_kind": (None, ErrorKind.TIMEOUT),
    "error_message": (None, "too slow"),
    "retryable": (None, False),
    "metrics": (None, {"x": 1.5, "none": None}),
    "artifacts": (None, {"series": "file:///x"}),
    "waiting": (None, Waiting.AWAITING),
    "model_version": (None, "fish-1"),
    "config_sha": (None, manifests.SHA),
    "ended_seq": (None, 3),
    "job_revision": (0, 1),
    "drains": (False, True),
    "suspended": (False, True),
    "host": (None, "n17"),
    "slot": (None, "3"),
    "step": (None, 2.0),
    "total": (None, 10.0),
    "excluded": (None, "bad disk"),
}
NEW = Run(point=1, replicate=0, attempt=1, seed=7)
FULL = replace(NEW, **{name: other for name, (_, other) in VALUES.items()})


def changes() -> Iterator[tuple[Run, Run]]:
    """Every change of the state together with up to two fields or with many, of a new run and of a full one."""
    fields = [set(names) for size in range(3) for names in combinations(VALUES, size)]
    claim = {"submitted_ms", "config_sha"}
    complete = {"started_ms", "finished_ms", "metrics", "artifacts", "model_version", "host", "slot", "ended_seq"}
    many = [changed | {other} for changed in (claim, complete | {"job_revision"}) for other in VALUES]
    for before, state, to in product((NEW, FULL), RunState, RunState):
        start = replace(before, state=state)
        for changed in [*fields, *many, set(VALUES)]:
            now = {name: VALUES[name][getattr(before, name) == VALUES[name][0]] for name in changed}
            yield start, replace(start, state=to, **now)


@pytest.fixture
async def connection(tmp_path: Path) -> AsyncIterator[sqlite3.Connection]:
    """The file of a manifest with an experiment and one run, which takes any row: most changes never happen."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        record = await manifests.accepted(manifest, manifests.spec(points=2, replicates=1))
        points, _ = manifests.jobs_of(range(2), 1)
        await manifest.expand(record.key, points, [], 2)
        await manifest.save([(record.key, None, NEW)], {})
    opened = sqlite3.connect(tmp_path / "manifest.db", isolation_level=None)
    opened.execute("PRAGMA ignore_check_constraints = ON")
    opened.execute("BEGIN")
    yield opened
    opened.close()


def write(connection: sqlite3.Connection, statement: str, row: rows.Row) -> None:
    written = connection.execute(WRITES[statement].for_rows(1, len(row)), row)
    assert written.rowcount == 1


def stored(connection: sqlite3.Connection) -> Run:
    [row] = connection.execute(READS["jobs"].text, {"keys": "[[1, 1, 0]]"}).fetchall()
    return rows.run(reads.RunRow(*row))


def test_every_field_of_a_run_can_change_in_these_tests() -> None:
    """A field that is added later has to be given values here."""
    assert {*VALUES, "state"} == asdict(NEW).keys() - {"point", "replicate", "attempt", "seed"}


async def test_a_run_is_as_it_should_be_after_any_change(connection: sqlite3.Connection) -> None:
    """Each change is read back as it was decided, whichever statement wrote it. Each statement is used."""
    used = set()
    last = NEW
    for before, after in changes():
        write(connection, "update_runs", rows.changed_run(1, last, before))
        statement, row = rows.update(1, before, after)
        write(connection, statement, row)
        used.add(statement)
        last = stored(connection)
        assert last == after, (statement, before)
    assert used == {"update_runs", *(narrow.statement for narrow in rows.NARROW.values())}


async def test_the_usual_life_of_a_run_is_written_narrowly() -> None:
    """This is what the statements are for."""
    claimed = manifests.claimed(NEW)
    accepted = replace(claimed, state=RunState.SUBMITTED)
    completed = manifests.completed(accepted, 1, population=2.0)
    life = [(NEW, claimed), (claimed, accepted), (accepted, completed), (claimed, completed)]
    statements = [rows.update(1, before, after)[0] for before, after in life]
    assert statements == ["claim_runs", "accept_runs", "complete_runs", "complete_runs"]


@pytest.mark.parametrize("to", rows.NARROW)
async def test_a_narrow_statement_is_guarded_by_the_state(connection: sqlite3.Connection, to: RunState) -> None:
    """A run in another state than expected, or another attempt, is not changed."""
    for before in (replace(NEW, state=RunState.RUNNING), replace(NEW, attempt=2)):
        statement, row = rows.update(1, before, replace(before, state=to))
        assert statement == rows.NARROW[to].statement
        assert connection.execute(WRITES[statement].for_rows(1, len(row)), row).rowcount == 0
    assert stored(connection) == NEW
