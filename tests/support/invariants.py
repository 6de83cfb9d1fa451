"""The rules that hold whatever was killed, cut off or repeated; docs/invariants.md explains them.

Each rule yields contradictions. The rules in `ALWAYS` hold at every moment, even right after a kill, and those in
`AT_THE_END` once all experiments have ended and are published.
"""

import fnmatch
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from ems_worker.adapters import yaml_reader
from ems_worker.core import ids
from ems_worker.core.points import plan, space
from ems_worker.core.points.plan import Plan
from ems_worker.core.points.render import Template
from tests.support import rules_of_changes
from tests.support.evidence import Evidence, Row
from tests.support.expected import Expected, Rule

__all__ = ["ALWAYS", "AT_THE_END", "Expected", "check"]

TERMINAL = ("completed", "failed", "cancelled", "lost")
ENDED = ("completed", "failed", "cancelled")
_RETRIED = ("infrastructure", "timeout", "lost")


def check(evidence: Evidence, expected: Expected | None = None, *, ended: bool = True) -> None:
    """Raises AssertionError with all contradictions to the rules."""
    expected = expected or Expected()
    rules = ALWAYS + AT_THE_END if ended else ALWAYS
    problems = [f"{rule.__name__}: {problem}" for rule in rules for problem in rule(evidence, expected)]
    assert not problems, "\n".join([f"{len(problems)} contradictions", *problems[:20]])


def durable_before_accepted(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each run that the orchestrator got had been recorded as submitting, with the same digest."""
    rows = {row["simulation_id"]: row for row in evidence.runs}
    for kind, name, *sha in evidence.calls:
        if kind == "ended":
            continue
        if (row := rows.get(name)) is None:
            yield f"{name} was {kind}, and the manifest doesn't have it"
        elif expected.restored:
            # Of what happened after the backup, events alone tell.
            continue
        elif row["state"] == "pending" or row["submitted_at"] is None:
            yield f"{name} was {kind}, and is {row['state']}"
        elif row["config_sha"] != sha[0]:
            yield f"{name} was {kind} as {sha[0]}, and is {row['config_sha']}"


def ids_are_functions_of_the_plan(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The id, seed, parameters and digest of each run follow from the plan's bytes alone."""
    for experiment_id in (experiment["experiment_id"] for experiment in evidence.experiments):
        parsed = _plan(*evidence.plans[experiment_id])
        points = _points(*evidence.plans[experiment_id])
        template = Template(parsed)
        for row in evidence.of(experiment_id):
            params, seed = points[row["point"]], parsed.seeds.of(row["point"], row["replicate"])
            if row["simulation_id"] != ids.simulation_id(experiment_id, row["point"], row["replicate"], row["attempt"]):
                yield f"{row['simulation_id']} is at {row['point']}/{row['replicate']}/{row['attempt']}"
            if json.loads(row["params"]) != params or row["seed"] != seed:
                yield f"{row['simulation_id']} has other parameters or another seed than in its plan"
            if row["config_sha"] is not None and row["config_sha"] != template.config_sha(params, seed):
                yield f"{row['simulation_id']} has another digest than in its plan"


def nothing_is_started_twice(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The orchestrator accepted each simulation id at most once, and never got it with another configuration."""
    counts = Counter((call[0], call[1]) for call in evidence.calls)
    for (kind, name), count in counts.items():
        if kind == "conflict" or (kind == "accepted" and count > 1):
            yield f"{name}: {kind} {count} times"


def attempts_follow_failures(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """A job has one open attempt, and the next one started after the one before failed, was lost, or was dropped."""
    rows = {row["simulation_id"]: row for row in evidence.runs}
    ended: set[str] = set()
    for kind, name, *_ in evidence.calls:
        if kind == "ended":
            ended.add(name)
        stem, _, attempt = name.rpartition("-a")
        before = f"{stem}-a{int(attempt) - 1}"
        if kind != "accepted" or before not in rows or before in ended:
            continue
        given_up = rows[before]["error_kind"] in ("lost", "refused")
        if not given_up and rows[before]["state"] not in ("completed", "cancelled"):
            yield f"{name} was accepted before {before} ended"
    for row in evidence.runs:
        after = f"{row['simulation_id'].rpartition('-a')[0]}-a{row['attempt'] + 1}"
        if after in rows and row["state"] not in TERMINAL:
            yield f"{row['simulation_id']} is {row['state']} although there is {after}"


def nothing_published_is_ahead(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """No published status, result or cursor is ahead of the manifest."""
    known = {experiment["experiment_id"]: experiment for experiment in evidence.experiments}
    for name, document in evidence.last_status.items():
        if name not in known or document["revision"] > known[name]["revision"]:
            yield f"status of {name} has revision {document['revision']}"
    revisions: dict[tuple[str, int, int], int] = defaultdict(int)
    for row in evidence.runs:
        job = row["experiment_id"], row["point"], row["replicate"]
        revisions[job] = max(revisions[job], row["job_revision"])
    # A restore may count fewer ends of a job than were published before, and give them other positions.
    for result in [] if expected.restored else evidence.results:
        job = result["experiment_id"], result["point"], result["replicate"]
        if result["job_revision"] > revisions[job] or result["seq"] > known[job[0]]["ended_seq"]:
            yield f"result {job} has revision {result['job_revision']} and position {result['seq']}"
    for name, row in known.items():
        if row["published_revision"] > row["revision"] or row["published_seq"] > row["ended_seq"]:
            yield f"{name} has published more than it has"


def windows_are_kept(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The orchestrator never had more open runs than the run window and `max_concurrent` allow."""
    limits = {name: _plan(*texts).limits.max_concurrent for name, texts in evidence.plans.items()}
    open_runs: set[str] = set()
    ended: set[str] = set()
    per_experiment: Counter[str] = Counter()
    for kind, name, *_ in evidence.calls:
        parsed = ids.parse_simulation_id(name)
        assert parsed is not None, name
        if kind == "accepted" and name not in ended:
            open_runs.add(name)
            per_experiment[parsed.experiment_id] += 1
            limit = limits.get(parsed.experiment_id)
            if expected.window is not None and len(open_runs) > expected.window:
                yield f"{len(open_runs)} runs are open with {name}; the window is {expected.window}"
            if limit is not None and per_experiment[parsed.experiment_id] > limit:
                yield f"{per_experiment[parsed.experiment_id]} of {parsed.experiment_id} are open; it may have {limit}"
        elif kind == "ended":
            per_experiment[parsed.experiment_id] -= name in open_runs
            open_runs.discard(name)
            ended.add(name)


def acked_plans_are_decided_once(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each acknowledged plan has one decision, published as recorded, and one experiment if it was accepted."""
    by_seq = {row["seq"]: row for row in evidence.submissions}
    for seq in evidence.acked:
        if seq not in by_seq:
            yield f"plan {seq} was acknowledged and never decided"
    for seq, row in by_seq.items():
        if evidence.decisions.get(seq) != json.loads(row["document"]) or not row["published"]:
            yield f"the decision about plan {seq} isn't published as it was recorded"
    accepted = Counter(row["experiment_id"] for row in evidence.submissions if row["verdict"] == "accepted")
    if accepted != Counter(experiment["experiment_id"] for experiment in evidence.experiments):
        yield f"{len(evidence.experiments)} experiments for the accepted plans {accepted}"


def every_job_has_one_end(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each experiment has ended, and each of its jobs has one terminal state and a position of its own."""
    for experiment in evidence.experiments:
        name, parsed = experiment["experiment_id"], _plan(*evidence.plans[experiment["experiment_id"]])
        if experiment["state"] not in ENDED:
            yield f"{name} is {experiment['state']}"
        rows = evidence.of(name)
        current = Counter((row["point"], row["replicate"]) for row in rows if row["current"])
        points = _points(*evidence.plans[name])
        if current != Counter((point, replicate) for point in points for replicate in range(parsed.replicates)):
            yield f"{name} has {sum(current.values())} current runs for {experiment['jobs']} jobs"
        for row in rows:
            if row["state"] not in TERMINAL or row["waiting"] == "awaiting":
                yield f"{row['simulation_id']} is {row['state']}, waiting {row['waiting']}"
        seqs = [row["ended_seq"] for row in rows if row["current"] and not rules_of_changes.only_counted(row)]
        if None in seqs or len(set(seqs)) != len(seqs) or max(seqs, default=0) > experiment["ended_seq"]:
            yield f"{name} has wrong positions: {sorted(seqs, key=str)[:10]}"


def results_are_those_of_the_manifest(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each end of a job is published once, the last one as in the manifest, and the cursor is at the last end."""
    published: dict[tuple[str, int, int], dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for result in evidence.results:
        job = result["experiment_id"], result["point"], result["replicate"]
        revision = result["job_revision"]
        if expected.restored:
            published[job][revision] = result
        elif published[job].setdefault(revision, result) != result:
            yield f"{job} has two results of revision {result['job_revision']}"
    for row in evidence.runs:
        if not row["current"]:
            continue
        revisions = published.pop((row["experiment_id"], row["point"], row["replicate"]), {})
        if rules_of_changes.only_counted(row) and not revisions:
            continue
        if row["job_revision"] not in revisions or (max(revisions) > row["job_revision"] and not expected.restored):
            yield f"{row['simulation_id']} has revision {row['job_revision']}; published are {sorted(revisions)}"
            continue
        if not expected.superseded and sorted(revisions) != list(range(1, row["job_revision"] + 1)):
            yield f"{row['simulation_id']}: published are revisions {sorted(revisions)} of {row['job_revision']}"
        last = revisions[row["job_revision"]]
        state = "failed" if row["waiting"] == "missing" else row["state"]
        ours = [row["simulation_id"], row["seed"], state, json.loads(row["metrics"] or "null"), row["ended_seq"]]
        theirs = [last["simulation_id"], last["seed"], last["state"], last["metrics"], last["seq"]]
        ours.append(row["excluded"])
        theirs.append(last["excluded"])
        if ours != theirs:
            yield f"the result is {theirs}, the manifest has {ours}"
    if published:
        yield f"results of jobs that don't exist: {list(published)[:5]}"
    for row in evidence.experiments:
        if row["published_seq"] != row["ended_seq"]:
            yield f"{row['experiment_id']}: {row['published_seq']} of {row['ended_seq']} ends are published"


def the_last_status_is_the_end(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The last status of an experiment is terminal, equals the manifest's, and counts the jobs as they are."""
    for experiment in evidence.experiments:
        name = experiment["experiment_id"]
        if (last := evidence.last_status.get(name)) is None or last != evidence.statuses.get(name):
            yield f"{name}: the status in the stream isn't the manifest's"
            continue
        revisions = {last["revision"], experiment["revision"], experiment["published_revision"]}
        if last["state"] != experiment["state"] or len(revisions) > 1:
            yield f"{name} is {experiment['state']}, and its status {last['revision']} has {last['state']}"
        counts = Counter(_bucket(row) for row in evidence.of(name) if row["current"])
        if Counter({state: count for state, count in last["counts"].items() if count}) != counts:
            yield f"{name}: the status counts {last['counts']}, the manifest {dict(counts)}"
        if sum(last["counts"].values()) != last["total"] or last["total"] != experiment["jobs"]:
            yield f"{name}: {last['counts']} don't add up to {experiment['jobs']}"


def jobs_end_as_their_runs_did(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """Each job ended as its runs did at the orchestrator, after as many attempts as that takes.

    No transport error ends a job, and neither the order nor the repetition of events changes its end.
    """
    if expected.failures is None:
        return
    for experiment_id in (experiment["experiment_id"] for experiment in evidence.experiments):
        limits = _plan(*evidence.plans[experiment_id]).limits
        jobs: dict[tuple[int, int], list[Row]] = defaultdict(list)
        for row in evidence.of(experiment_id):
            jobs[row["point"], row["replicate"]].append(row)
        for rows in jobs.values():
            for row in rows:
                outcome = expected.failures.outcome(row["simulation_id"])
                kind = None if outcome.error_kind is None else outcome.error_kind.value
                if any(fnmatch.fnmatchcase(row["simulation_id"], pattern) for pattern in expected.late):
                    kind = "timeout"
                if expected.steered and row["state"] in ("cancelled", "lost"):
                    if row["stop_reason"] is None and row["current"]:
                        yield f"{row['simulation_id']} is {row['state']}, and nobody called it off"
                    continue
                if row["simulation_id"] in evidence.stopped:
                    yield f"{row['simulation_id']} was stopped, and is {row['state']}"
                metrics = json.loads(row["metrics"] or "{}")
                if row["error_kind"] != kind or metrics != (outcome.metrics if kind is None else {}):
                    yield f"{row['simulation_id']} ended {row['error_kind']} {metrics}, not {kind} {outcome.metrics}"
                again = kind in _RETRIED and row["attempt"] < limits.max_attempts
                if expected.steered:
                    continue
                if row["current"] if again else not row["current"] and not expected.retried:
                    yield f"{row['simulation_id']} of {len(rows)} attempts, ended {kind}, current {row['current']}"


def nothing_else_is_a_dead_letter(evidence: Evidence, expected: Expected) -> Iterator[str]:
    """The number of dead letters is the expected one."""
    if expected.dead is not None and len(evidence.dead) != expected.dead:
        yield f"{len(evidence.dead)} dead letters: {[(letter.subject, letter.headers) for letter in evidence.dead[:5]]}"


ALWAYS: tuple[Rule, ...] = (
    durable_before_accepted,
    ids_are_functions_of_the_plan,
    nothing_is_started_twice,
    attempts_follow_failures,
    nothing_published_is_ahead,
    windows_are_kept,
)
AT_THE_END: tuple[Rule, ...] = (
    acked_plans_are_decided_once,
    every_job_has_one_end,
    results_are_those_of_the_manifest,
    the_last_status_is_the_end,
    jobs_end_as_their_runs_did,
    nothing_else_is_a_dead_letter,
    *rules_of_changes.AT_THE_END,
)


def _bucket(row: Row) -> str:
    if row["waiting"] == "missing":
        return "failed"
    return "infeasible" if row["error_kind"] == "infeasible" else str(row["state"])


@cache
def _plan(text: bytes, base: bytes) -> Plan:
    return plan.parse(yaml_reader.read_plan(text).data, yaml_reader.read_plan(base).data)


@cache
def _points(text: bytes, base: bytes) -> Mapping[int, Mapping[str, Any]]:
    return {point.index: dict(point.params) for point in space.points(_plan(text, base))}
