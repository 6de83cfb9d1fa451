"""The durable state of the orchestrator: runs, and the events that aren't published yet.

Every method returns after its change is on disk.
"""

import contextlib
import importlib.resources
import json
import re
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from ems_worker.local.orchestrator import model
from ems_worker.local.orchestrator.database import Database

_SCHEMA_VERSION = 2
# What makes a database of an earlier version one of the next.
_UPGRADES = {1: "ALTER TABLE runs ADD COLUMN simulator TEXT NOT NULL DEFAULT ''"}
_FORGET_LIMIT = 500


def _queries() -> dict[str, str]:
    text = importlib.resources.files(__package__).joinpath("store.sql").read_text()
    parts = re.split(r"^-- name: (\w+)\n", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


class Store:
    """Runs, and their events that aren't published yet. Use it from one event loop, between `open` and `close`."""

    def __init__(self, path: Path) -> None:
        self._sql = _queries()
        self._database = Database(path, schema=self._sql["schema"], version=_SCHEMA_VERSION, upgrades=_UPGRADES)

    async def open(self) -> None:
        """Opens or creates the database. Raises PlatformFailed if it is damaged, of another version, or unusable."""
        await self._database.open()

    async def close(self) -> None:
        """Commits the pending changes and closes the database. Calling it again does nothing."""
        await self._database.close()

    async def admit(self, orders: Sequence[model.Order]) -> list[model.Admission]:
        """Stores new orders as queued runs; returns the answer to each order."""

        def change(db: sqlite3.Connection) -> list[model.Admission]:
            return [self._admit(db, order) for order in orders]

        return await self._database.do(change)

    async def open_runs(self) -> list[model.LocalRun]:
        """All runs that have not ended, in the order of arrival."""
        return await self._database.do(lambda db: [_run(row) for row in db.execute(self._sql["open_runs"])])

    async def get(self, simulation_ids: Iterable[str]) -> dict[str, model.LocalRun]:
        """The runs with these ids, by id; unknown ids are omitted."""

        def change(db: sqlite3.Connection) -> dict[str, model.LocalRun]:
            rows = (db.execute(self._sql["get"], {"simulation_id": name}).fetchone() for name in simulation_ids)
            return {row["simulation_id"]: _run(row) for row in rows if row is not None}

        return await self._database.do(change)

    async def begin(self, simulation_id: str, *, host: str, slot: str) -> model.LocalRun | None:
        """Moves a queued run to `starting`, on this host and in this slot; None if it is no longer queued."""

        def change(db: sqlite3.Connection) -> model.LocalRun | None:
            fields = {"simulation_id": simulation_id, "host": host, "slot": slot}
            if db.execute(self._sql["begin"], fields).rowcount == 0:
                return None
            return _run(db.execute(self._sql["get"], fields).fetchone())

        return await self._database.do(change)

    async def order(self, simulation_id: str) -> model.Order:
        """The order of a run. It is stored until the run has started."""

        def change(db: sqlite3.Connection) -> model.Order:
            row = db.execute(self._sql["get"], {"simulation_id": simulation_id}).fetchone()
            return model.Order(
                simulation_id,
                row["config"],
                row["config_sha"],
                int(row["seed"]),
                row["experiment_id"],
                row["simulator"],
            )

        return await self._database.do(change)

    async def started(self, run: model.LocalRun, event: model.Event) -> None:
        """Records that the process of the run has started."""
        fields = {
            "simulation_id": run.simulation_id,
            "started_ns": run.started_ns,
            "model_version": run.model_version,
        }
        await self._database.do(lambda db: self._move(db, "started", fields, event))

    async def end(self, run: model.LocalRun, event: model.Event) -> None:
        """Records the end of the run. A run that has ended already is unchanged."""
        fields = {
            "simulation_id": run.simulation_id,
            "state": run.state,
            "finished_ns": run.finished_ns,
            "metrics": json.dumps(run.end.metrics),
            "artifacts": json.dumps(run.end.artifacts),
            "error_kind": run.end.error_kind,
            "message": run.end.message,
            "retryable": run.end.retryable,
        }
        await self._database.do(lambda db: self._move(db, "end", fields, event))

    async def pause(self, simulation_id: str) -> bool:
        """Moves a running run to `paused`; False if it wasn't running."""
        return await self._database.do(lambda db: self._move(db, "pause", {"simulation_id": simulation_id}))

    async def resume(self, simulation_id: str) -> bool:
        """Moves a paused run to `running`; False if it wasn't paused."""
        return await self._database.do(lambda db: self._move(db, "resume", {"simulation_id": simulation_id}))

    async def hold(self, simulation_id: str) -> bool:
        """Moves a queued run to `held`; False if it wasn't queued."""
        return await self._database.do(lambda db: self._move(db, "hold", {"simulation_id": simulation_id}))

    async def release(self, simulation_id: str) -> bool:
        """Moves a held run to `queued`; False if it wasn't held."""
        return await self._database.do(lambda db: self._move(db, "release", {"simulation_id": simulation_id}))

    async def interrupt(self, simulation_ids: Iterable[str]) -> None:
        """Records that these runs, unless they have ended or are to be stopped, start again after a shutdown."""
        rows = [{"simulation_id": simulation_id} for simulation_id in simulation_ids]
        await self._database.do(lambda db: db.executemany(self._sql["interrupt"], rows))

    async def restart(self, simulation_id: str) -> bool:
        """Moves an interrupted run, whose processes and files are gone, to `queued`, or to `held` if it was paused.

        False if it isn't interrupted.
        """
        return await self._database.do(lambda db: self._move(db, "restart", {"simulation_id": simulation_id}))

    async def request_stop(self, simulation_id: str) -> bool:
        """Records that the run is to be stopped; False if it has ended already."""
        return await self._database.do(lambda db: self._move(db, "request_stop", {"simulation_id": simulation_id}))

    async def unpublished(self, limit: int) -> list[model.StoredEvent]:
        """The oldest events that the broker hasn't acknowledged."""

        def change(db: sqlite3.Connection) -> list[model.StoredEvent]:
            rows = db.execute(self._sql["unpublished"], {"limit": limit})
            return [
                model.StoredEvent(number, model.Event(simulation_id, subject, message_id, body))
                for number, simulation_id, subject, message_id, body in rows
            ]

        return await self._database.do(change)

    async def published(self, numbers: Iterable[int]) -> None:
        """Deletes events that the broker has acknowledged."""
        rows = [{"number": number} for number in numbers]
        await self._database.do(lambda db: db.executemany(self._sql["published"], rows))

    async def expired(self, before_ns: int) -> list[str]:
        """The ids of some runs that ended before this time and whose events are all published."""
        fields = {"before_ns": before_ns, "limit": _FORGET_LIMIT}
        return await self._database.do(
            lambda db: [row["simulation_id"] for row in db.execute(self._sql["expired"], fields)]
        )

    async def forget(self, simulation_ids: Iterable[str]) -> None:
        """Deletes runs, so that their ids may be used again."""
        rows = [{"simulation_id": simulation_id} for simulation_id in simulation_ids]
        await self._database.do(lambda db: db.executemany(self._sql["forget"], rows))

    def _admit(self, db: sqlite3.Connection, order: model.Order) -> model.Admission:
        fields = {
            "simulation_id": order.simulation_id,
            "config_sha": order.config_sha,
            "experiment_id": order.experiment_id,
            "simulator": order.simulator,
            "seed": str(order.seed),
            "config": order.config,
        }
        if db.execute(self._sql["admit"], fields).rowcount == 1:
            return model.Admission.ACCEPTED
        known = db.execute(self._sql["sha_of"], {"simulation_id": order.simulation_id}).fetchone()
        same = known["config_sha"] == order.config_sha
        return model.Admission.ALREADY_EXISTS if same else model.Admission.OTHER_CONFIG

    def _move(
        self, db: sqlite3.Connection, query: str, fields: dict[str, Any], event: model.Event | None = None
    ) -> bool:
        """Changes one run if it is in the expected state, and stores its event in the same transaction."""
        if db.execute(self._sql[query], fields).rowcount == 0:
            return False
        if event is not None:
            posted = {
                "simulation_id": event.simulation_id,
                "subject": event.subject,
                "message_id": event.message_id,
                "body": event.body,
            }
            db.execute(self._sql["post"], posted)
        return True


def left(path: Path) -> model.Left:
    """What an orchestrator that isn't running has left to do; nothing if it has no database, or an unusable one."""
    if not path.exists():
        return model.Left()
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            return model.Left(*db.execute(_queries()["left"]).fetchone())
    except sqlite3.Error:
        return model.Left()


def _run(row: sqlite3.Row) -> model.LocalRun:
    return model.LocalRun(
        simulation_id=row["simulation_id"],
        state=model.State(row["state"]),
        config_sha=row["config_sha"],
        experiment_id=row["experiment_id"],
        stop_requested=bool(row["stop_requested"]),
        started_ns=row["started_ns"],
        finished_ns=row["finished_ns"],
        end=model.RunEnd(
            error_kind=model.ErrorKind(row["error_kind"]) if row["error_kind"] is not None else None,
            metrics=json.loads(row["metrics"]),
            artifacts=json.loads(row["artifacts"]),
            message=row["message"],
            retryable=bool(row["retryable"]) if row["retryable"] is not None else None,
        ),
        model_version=row["model_version"],
        interrupted=bool(row["interrupted"]),
        starts=row["starts"],
        host=row["host"],
        slot=row["slot"],
    )
