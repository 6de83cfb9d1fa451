"""Large manifests in seconds: the rows of one experiment are copied in SQL.

The worker is stopped meanwhile. The copies are as the worker left the first one, and reopened if that is asked for.
"""

import contextlib
import sqlite3
from pathlib import Path

_TABLES = ("plans", "points", "runs", "point_metrics", "statuses")


def copy(data: Path, name: str, copies: int, *, half_done: bool = False) -> None:
    """Adds so many copies of an experiment, `NAME-1` and so on.

    If `half_done`, the second half of the jobs of each, and of the original, is pending again.
    """
    with contextlib.closing(sqlite3.connect(data / "manifest.db")) as database, database:
        database.execute("PRAGMA synchronous = OFF")
        if half_done:
            _reopen(database, name)
        [[original]] = database.execute("SELECT key FROM experiments WHERE experiment_id = ?", [name]).fetchall()
        [[last]] = database.execute("SELECT max(key) FROM experiments").fetchall()
        # All copies by one statement a table: so many keys follow the last.
        new = (
            "(WITH RECURSIVE new (number) AS (SELECT 1 UNION ALL SELECT number + 1 FROM new LIMIT ?) SELECT * FROM new)"
        )
        columns = _columns(database, "experiments") - {"key", "experiment_id", "name"}
        listed = ", ".join(f'"{column}"' for column in sorted(columns))
        database.execute(
            f"INSERT INTO experiments (key, experiment_id, name, {listed}) "
            f"SELECT ? + number, experiment_id || '-' || number, name || '-' || number, {listed} "
            f"FROM experiments, {new} WHERE key = ?",
            [last, copies, original],
        )
        for table in _TABLES:
            listed = ", ".join(f'"{column}"' for column in sorted(_columns(database, table) - {"experiment"}))
            database.execute(
                f"INSERT INTO {table} (experiment, {listed}) SELECT ? + number, {listed} "
                f"FROM {new} CROSS JOIN {table} WHERE experiment = ?",
                [last, copies, original],
            )


def _columns(database: sqlite3.Connection, table: str) -> set[str]:
    return {str(name) for [name] in database.execute("SELECT name FROM pragma_table_info(?)", [table])}


def _reopen(database: sqlite3.Connection, name: str) -> None:
    """Makes the second half of the jobs of a completed experiment pending, as if they had never been started."""
    [[key, jobs]] = database.execute("SELECT key, jobs FROM experiments WHERE experiment_id = ?", [name]).fetchall()
    kept = ("experiment", "point", "replicate", "attempt", "seed")
    info = database.execute("SELECT name, dflt_value FROM pragma_table_info('runs')").fetchall()
    reset = ", ".join(f'"{column}" = {default or "NULL"}' for column, default in info if column not in kept)
    database.execute(f"UPDATE runs SET {reset} WHERE experiment = ? AND ended_seq > ?", [key, jobs // 2])
    database.execute(
        "UPDATE experiments SET state = 'running', finished_ms = NULL, ended_seq = :half, published_seq = :half "
        "WHERE key = :key",
        {"half": jobs // 2, "key": key},
    )
