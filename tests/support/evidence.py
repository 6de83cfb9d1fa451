"""What is left after a crash test, read from the outside: the manifest, the oracle's log, the streams."""

import json
import sqlite3
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A message in a stream."""

    seq: int
    subject: str
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evidence:
    """`calls` are the lines of the oracle's log, split into words. `acked` are the acknowledged plans by sequence."""

    experiments: Sequence[Row]
    plans: Mapping[str, tuple[bytes, bytes]]
    submissions: Sequence[Row]
    runs: Sequence[Row]
    statuses: Mapping[str, Mapping[str, Any]]
    calls: Sequence[Sequence[str]]
    acked: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    decisions: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    last_status: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    results: Sequence[Mapping[str, Any]] = ()
    points: Sequence[Mapping[str, Any]] = ()
    # Changes that people requested: in the manifest, and as published.
    changes: Sequence[Row] = ()
    changed: Sequence[Mapping[str, Any]] = ()
    # The documents of rounds that settled.
    settled: Sequence[Mapping[str, Any]] = ()
    # The runs that a STOP ended.
    stopped: Set[str] = frozenset()
    dead: Sequence[Stored] = ()

    def of(self, experiment_id: str) -> list[Row]:
        """All runs of an experiment, in the order of point, replicate and attempt."""
        return [row for row in self.runs if row["experiment_id"] == experiment_id]


def local(manifest: Path, log: Path, acked: Mapping[int, Mapping[str, Any]] | None = None) -> Evidence:
    """Reads the files, which are all that is available while the server is down.

    The log is read first and the manifest as one snapshot: whatever is in the log must be in the manifest already.
    """
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    connection = sqlite3.connect(f"file:{manifest}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("BEGIN")

        def rows(query: str) -> list[Row]:
            return [dict(row) for row in connection.execute(query)]

        plans = {
            row["experiment_id"]: (row["plan"], row["base"].encode())
            for row in rows(
                "SELECT experiment_id, last.plan, first.base FROM experiments "
                "JOIN plans AS last ON last.experiment = key AND last.version = plan_version "
                "JOIN plans AS first ON first.experiment = key AND first.version = 1"
            )
        }
        statuses = rows("SELECT experiment_id, document FROM statuses JOIN experiments ON experiment = key")
        return Evidence(
            experiments=rows("SELECT * FROM experiments ORDER BY key"),
            plans=plans,
            submissions=rows("SELECT * FROM submissions"),
            runs=rows("SELECT * FROM v_runs ORDER BY experiment_id, point, replicate, attempt"),
            statuses={row["experiment_id"]: json.loads(row["document"]) for row in statuses},
            changes=rows("SELECT changes.*, experiment_id FROM changes JOIN experiments ON key = experiment"),
            calls=[line.split(" ") for line in lines],
            acked=acked or {},
        )
    finally:
        connection.close()


async def whole(jetstream: JetStreamContext, files: Evidence) -> Evidence:
    """Adds the contents of the streams."""
    status = await stored(jetstream, "EMS_STATUS")
    results = await stored(jetstream, "EMS_RESULTS")
    return replace(
        files,
        decisions={int(token): document for token, document in _by_last_token(status, ".decision.")},
        last_status=dict(_by_last_token(status, ".status.")),
        results=[message.document for message in results if ".result." in message.subject],
        points=[message.document for message in results if ".point." in message.subject],
        settled=[message.document for message in results if ".settled." in message.subject],
        changed=[message.document for message in results if ".change." in message.subject],
        dead=await stored(jetstream, "EMS_DLQ"),
    )


async def stored(jetstream: JetStreamContext, stream: str) -> list[Stored]:
    """Every message of a stream, in order. A body that isn't a JSON object is an empty document."""
    state = (await jetstream.stream_info(stream)).state
    if not state.messages:
        return []
    config = ConsumerConfig(deliver_policy=DeliverPolicy.ALL, ack_policy=AckPolicy.NONE, inactive_threshold=60)
    reader = await jetstream.pull_subscribe("", stream=stream, config=config)
    messages: list[Stored] = []
    while not messages or messages[-1].seq < state.last_seq:
        for message in await reader.fetch(500, timeout=2):
            seq, headers = message.metadata.sequence.stream, message.headers or {}
            messages.append(Stored(seq, message.subject, _document(message.data), headers))
        if not (await reader.consumer_info()).num_pending:
            break
    await reader.unsubscribe()
    return messages


def _by_last_token(messages: Sequence[Stored], kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The documents of a kind, each with the last token of its subject."""
    return [(message.subject.rpartition(".")[2], message.document) for message in messages if kind in message.subject]


def _document(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
