"""What is left after a story: the manifest, the streams and the orchestrator's log."""

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.support import evidence, stage
from tests.support.evidence import Row, Stored


@dataclass(frozen=True)
class Found:
    """The manifest, the streams and the orchestrator's log after a story."""

    experiments: Sequence[Row]
    runs: Sequence[Row]
    changes: Sequence[Row]
    statuses: Mapping[str, Mapping[str, Any]]
    status_stream: Sequence[Stored]
    results_stream: Sequence[Stored]
    dead: Sequence[Stored]
    calls: Sequence[Sequence[str]]

    def of(self, name: str) -> list[Row]:
        return [row for row in self.runs if row["experiment_id"] == name]


async def read(theatre: stage.Stage, calls: Sequence[Sequence[str]]) -> Found:
    """Reads everything, once the worker has ended."""
    connection = sqlite3.connect(f"file:{theatre.manifest}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:

        def rows(query: str) -> list[Row]:
            return [dict(row) for row in connection.execute(query)]

        documents = rows("SELECT experiment_id, document FROM statuses JOIN experiments ON experiment = key")
        async with theatre.client() as client:
            jetstream = client.jetstream()
            return Found(
                experiments=rows("SELECT * FROM experiments"),
                runs=rows("SELECT * FROM v_runs"),
                changes=rows("SELECT changes.*, experiment_id FROM changes JOIN experiments ON key = experiment"),
                statuses={row["experiment_id"]: json.loads(row["document"]) for row in documents},
                status_stream=await evidence.stored(jetstream, "EMS_STATUS"),
                results_stream=await evidence.stored(jetstream, "EMS_RESULTS"),
                dead=await evidence.stored(jetstream, "EMS_DLQ"),
                calls=calls,
            )
    finally:
        connection.close()
