"""The rules about changes that people requested, and about rounds; part of docs/invariants.md."""

import itertools
import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterator

from tests.support.evidence import Evidence, Row
from tests.support.expected import Expected, Rule


def only_counted(row: Row) -> bool:
    """Whether a job was cancelled before it ever started: it has no result."""
    return row["state"] == "cancelled" and row["attempt"] == 1 and row["submitted_at"] is None


def every_change_is_closed(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each change is recorded once and applied, and published when recorded and again when applied."""
    published: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for document in evidence.changed:
        published[document["experiment_id"], document["request_id"]].append(document["applied"])
    for row in evidence.changes:
        applied = published.pop((row["experiment_id"], row["request_id"]), [])
        if row["applied_ms"] is None or row["judged_point"] is not None:
            yield f"{row['request_id']} of {row['experiment_id']} isn't applied"
        # A document may come twice: a broker that restarts forgets the ids of messages.
        once = [value for value, _ in itertools.groupby(applied)]
        if (once[-1:] != [True]) if expected.restored else (once != [False, True]):
            yield f"{row['request_id']} of {row['experiment_id']}: published are {applied}"
    if published:
        yield f"{list(published)[:5]} are published, and were not recorded"


def excluded_jobs_leave_the_aggregates(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The metrics of the last status are those of completed jobs that aren't excluded."""
    for name, last in evidence.last_status.items():
        for metric, aggregate in last["metrics"].items():
            counting = [row for row in evidence.of(name) if row["current"] and row["state"] == "completed"]
            values = [json.loads(row["metrics"]).get(metric) for row in counting if row["excluded"] is None]
            present = [value for value in values if value is not None]
            mean = sum(present) / len(present) if present else None
            if aggregate["n"] != len(present) or aggregate["missing"] != len(values) - len(present):
                yield f"{name}: {metric} has {aggregate}, and there are {values}"
            elif mean is not None and not math.isclose(aggregate["mean"], mean, rel_tol=1e-9):
                yield f"{name}: the mean of {metric} is {mean}, not {aggregate['mean']}"


def each_round_settles_once(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each round of an experiment has one document that says that it has settled."""
    rounds = Counter((document["experiment_id"], document["round"]) for document in evidence.settled)
    for experiment in evidence.experiments:
        for number in range(1, experiment["round"] + 1):
            times = rounds.pop((experiment["experiment_id"], number), 0)
            if times < 1 or (times > 1 and not expected.restored):
                yield f"round {number} of {experiment['experiment_id']} settled {times} times"
    if rounds and not expected.restored:
        yield f"rounds settled that there were not: {list(rounds)[:5]}"


AT_THE_END: tuple[Rule, ...] = (each_round_settles_once, every_change_is_closed, excluded_jobs_leave_the_aggregates)
