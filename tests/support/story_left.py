"""What of a story hasn't come to its end yet."""

from collections.abc import Callable, Iterable
from typing import Any

_EXPERIMENT = "(SELECT experiment_id FROM experiments WHERE key = experiment)"
_QUERIES = {
    "experiment": "SELECT experiment_id, state, pauses, kept_open, round, published_seq, ended_seq,"
    " published_revision, revision, state_revision, settled_round FROM experiments WHERE finished_ms IS NULL"
    " OR published_seq < ended_seq OR published_revision < revision OR published_revision < state_revision"
    " OR settled_round < round",
    "run": f"SELECT {_EXPERIMENT}, point, replicate, attempt, state, stop_reason FROM runs"
    " WHERE state IN ('submitting', 'submitted', 'running')",
    "change": f"SELECT {_EXPERIMENT}, verb, request_id, judged_point, applied_ms, published FROM changes"
    " WHERE applied_ms IS NULL OR published < 2",
    "plan": "SELECT seq FROM submissions WHERE published = 0",
}


def left(rows: Callable[[str], Iterable[tuple[Any, ...]]], acked: Iterable[int]) -> list[str]:
    """It in words. `rows` asks the manifest; `acked` are the sequences of published plans."""
    found = [f"{kind} {row}" for kind, query in _QUERIES.items() for row in rows(query)]
    decided = {row[0] for row in rows("SELECT seq FROM submissions")}
    return found + [f"plan {seq} isn't decided" for seq in acked if seq not in decided]
