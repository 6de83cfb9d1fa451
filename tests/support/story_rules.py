"""What holds at the end of every story: nothing is lost, twice or wrong; each change was applied once and closed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support import stage, story_changes, story_found
from tests.support.evidence import Row
from tests.support.story_desk import Desk
from tests.support.story_found import Found

TERMINAL = ("completed", "failed", "cancelled", "lost")
ENDED = ("completed", "failed", "cancelled")
_BAD_EVENTS = ("worker.fatal", "ledger.not_recorded", "message.poison", "experiment.left_out", "dispatch.halted")


async def check(theatre: stage.Stage, desk: Desk) -> None:
    """Raises AssertionError with all contradictions."""
    found = await story_found.read(theatre, desk.calls())
    problems = [f"{rule.__name__}: {problem}" for rule in RULES for problem in rule(found, desk)]
    problems += [f"the worker's log: {line}" for line in theatre.worker.log.read_text().splitlines() if _is_bad(line)]
    shown = [problem[:800] for problem in problems[:12]]
    assert not problems, "\n".join([f"{len(problems)} contradictions", *shown])


def every_plan_is_an_experiment(found: Found, desk: Desk) -> Iterator[str]:
    """Each plan that was published is an experiment with all its jobs, and each job has one run that stands for it."""
    if sorted(row["experiment_id"] for row in found.experiments) != sorted(desk.plans):
        yield f"there are {[row['experiment_id'] for row in found.experiments]} for the plans {sorted(desk.plans)}"
    for row in found.experiments:
        current = Counter((run["point"], run["replicate"]) for run in found.of(row["experiment_id"]) if run["current"])
        if len(current) != row["jobs"] or set(current.values()) != {1}:
            yield f"{row['experiment_id']} has {len(current)} jobs of {row['jobs']}"


def everything_has_ended(found: Found, desk: Desk) -> Iterator[str]:
    """Every experiment and every run is in a terminal state, and positions of ends are unique."""
    for row in found.experiments:
        if row["state"] not in ENDED:
            yield f"{row['experiment_id']} is {row['state']}"
    for run in found.runs:
        if run["state"] not in TERMINAL or run["waiting"] == "awaiting":
            yield f"{run['simulation_id']} is {run['state']}"
    for row in found.experiments:
        seqs = [run["ended_seq"] for run in found.of(row["experiment_id"]) if run["ended_seq"] is not None]
        if len(set(seqs)) != len(seqs) or max(seqs, default=0) > row["ended_seq"]:
            yield f"{row['experiment_id']} has wrong positions: {sorted(seqs)[:10]} of {row['ended_seq']}"


def nothing_started_twice_or_unrecorded(found: Found, desk: Desk) -> Iterator[str]:
    """The orchestrator accepted each id once, with the recorded digest, and everything that it started has ended."""
    accepted = Counter(call[1] for call in found.calls if call[0] == "accepted")
    ended = {call[1] for call in found.calls if call[0] == "ended"}
    rows = {row["simulation_id"]: row for row in found.runs}
    for kind, name, *sha in found.calls:
        if kind == "conflict" or (kind == "accepted" and accepted[name] > 1):
            yield f"{name} was {kind}, {accepted[name]} times accepted"
        if kind == "accepted":
            recorded = rows[name]["config_sha"] if name in rows else "no such run"
            # A restored manifest learns of a run that was sent after the backup only that it has ended.
            if recorded != sha[0] and not (desk.restores and recorded is None):
                yield f"{name} was accepted as {sha[0]}, and the manifest has {recorded}"
    for name in sorted(accepted.keys() - ended):
        # A restored manifest doesn't know that a run was started since the backup, until something is heard of it.
        forgotten = desk.restores and name in rows and rows[name]["submitted_at"] is None
        # Nobody waits for a run that nobody needs, if the orchestrator can't stop it.
        unneeded = name in rows and rows[name]["stop_reason"] in ("failing_fast", "superseded")
        if name in rows and rows[name]["state"] != "lost" and not forgotten and not unneeded:
            yield f"{name} never ended at the orchestrator; here it is {rows[name]['state']}"
    for name, row in rows.items():
        if row["state"] in ("completed", "failed") and name not in accepted:
            yield f"{name} is {row['state']} and was never started"


def bans_are_kept(found: Found, desk: Desk) -> Iterator[str]:
    """After the reply to a pause or a cancel no run of that experiment starts, until something may start it again."""
    for ban in desk.bans:
        for kind, name, *_ in found.calls[ban.since : ban.until]:
            if kind == "accepted" and ban.forbids(name):
                yield f"{name} started after {ban.why} {ban.where or ''} (lines {ban.since} to {ban.until})"


def statuses_agree(found: Found, desk: Desk) -> Iterator[str]:
    """The last status of each experiment is in the stream, terminal, and counts the jobs as they are."""
    last = {
        message.subject.rpartition(".")[2]: message.document
        for message in found.status_stream
        if ".status." in message.subject
    }
    for row in found.experiments:
        name = row["experiment_id"]
        status = last.get(name)
        if status is None or status != found.statuses.get(name):
            yield f"{name}: the status in the stream isn't the manifest's: {status} {found.statuses.get(name)}"
            continue
        if (status["state"], status["round"], status["revision"]) != (row["state"], row["round"], row["revision"]):
            yield f"{name} is {row['state']} in round {row['round']}, revision {row['revision']}; its status: {status}"
        counts = Counter(_bucket(run) for run in found.of(name) if run["current"])
        if {state: count for state, count in status["counts"].items() if count} != dict(counts):
            yield f"{name}: the status counts {status['counts']}, the manifest {dict(counts)}"
        if status["total"] != row["jobs"]:
            yield f"{name}: the status has {status['total']} of {row['jobs']} jobs"
        tracked = [json.loads(run["metrics"])["population"] for run in found.of(name) if _counts(run)]
        aggregate = (status.get("metrics") or {}).get("population") or {}
        if aggregate.get("n", 0) != len(tracked):
            yield f"{name}: n is {aggregate.get('n')} of {len(tracked)}"
        elif tracked and abs(aggregate["mean"] - sum(tracked) / len(tracked)) > 1e-6:
            yield f"{name}: the mean is {aggregate['mean']}, not {sum(tracked) / len(tracked)}"


def results_agree(found: Found, desk: Desk) -> Iterator[str]:
    """Each job that ended has one result a revision, the last one as in the manifest; the others have none."""
    published: dict[tuple[str, int, int], dict[int, list[Mapping[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for message in found.results_stream:
        if ".result." in message.subject:
            result = message.document
            job = result["experiment_id"], result["point"], result["replicate"]
            known = published[job][result["job_revision"]]
            if result not in known:
                known.append(result)
    for job, revisions in published.items():
        for revision, results in revisions.items():
            if len(results) > 1 and not desk.restores:
                yield f"{job} has several results of revision {revision}: {results}"
    for run in found.runs:
        if not run["current"]:
            continue
        revisions = published[run["experiment_id"], run["point"], run["replicate"]]
        if run["ended_seq"] is None:
            if revisions and not desk.restores and not run["job_revision"]:
                yield f"{run['simulation_id']} never started, and has the results {sorted(revisions)}"
            continue
        if max(revisions, default=0) != run["job_revision"]:
            yield f"{run['simulation_id']} has revision {run['job_revision']}; published are {sorted(revisions)}"
            continue
        state = "failed" if run["waiting"] == "missing" else run["state"]
        # A restored manifest may number the ends since its backup in another order.
        ours = (run["simulation_id"], run["seed"], state, run["excluded"], desk.restores or run["ended_seq"])
        theirs = [
            (last["simulation_id"], last["seed"], last["state"], last.get("excluded"), desk.restores or last["seq"])
            for last in revisions[run["job_revision"]]
        ]
        # Which runs the worker stopped at their time limits since a backup, and then tried again, is in no stream.
        if ours not in theirs and not (desk.restores and run["error_kind"] == "stopped"):
            yield f"the results are {theirs}, the manifest has {ours}"
    for row in found.experiments:
        if row["published_seq"] != row["ended_seq"]:
            yield f"{row['experiment_id']}: {row['published_seq']} of {row['ended_seq']} ends are published"


def points_agree(found: Found, desk: Desk) -> Iterator[str]:
    """The last document of each point that has a result counts its jobs as they are."""
    last: dict[tuple[str, int], Mapping[str, Any]] = {}
    for message in found.results_stream:
        if ".point." in message.subject:
            last[message.document["experiment_id"], message.document["point"]] = message.document
    counts: dict[tuple[str, int], Counter[str]] = defaultdict(Counter)
    for run in found.runs:
        if run["current"]:
            counts[run["experiment_id"], run["point"]][_bucket(run)] += 1
    with_results = {(run["experiment_id"], run["point"]) for run in found.runs if run["ended_seq"] is not None}
    for key in sorted(with_results):
        document = last.get(key)
        if document is None or {state: jobs for state, jobs in document["counts"].items() if jobs} != counts[key]:
            yield f"the point {key} has {dict(counts[key])}, its last document is {document}"


def each_round_settled_once(found: Found, desk: Desk) -> Iterator[str]:
    """There is one document for each round of an experiment."""
    rounds: dict[str, list[int]] = defaultdict(list)
    for message in found.results_stream:
        if ".settled." in message.subject:
            rounds[message.document["experiment_id"]].append(message.document["round"])
    for row in found.experiments:
        name = row["experiment_id"]
        if rounds[name] != list(range(1, row["round"] + 1)):
            yield f"{name}: the rounds {rounds[name]} settled, of {row['round']}"


def nothing_is_a_dead_letter(found: Found, desk: Desk) -> Iterator[str]:
    """No message was given up.

    After a restore a cancellation may find a job pending that had been started since the backup, if nothing was heard
    of its run before: then the end of that run comes too late.
    """
    for letter in found.dead:
        reason = letter.headers.get("Ems-Reason", "")
        if not (desk.restores and reason.endswith("came too late")):
            yield f"dead letter {letter.subject}: {letter.headers}"


RULES = (
    every_plan_is_an_experiment,
    everything_has_ended,
    nothing_started_twice_or_unrecorded,
    bans_are_kept,
    statuses_agree,
    results_agree,
    points_agree,
    each_round_settled_once,
    *story_changes.RULES,
    nothing_is_a_dead_letter,
)


def _is_bad(text: str) -> bool:
    if not text.startswith("{"):
        return True
    try:
        line = json.loads(text)
    except ValueError:
        return False  # a worker was killed while it wrote the line
    return line["event"] in _BAD_EVENTS or line["level"] == "critical" or "exception" in line


def _bucket(run: Row) -> str:
    if run["waiting"] == "missing":
        return "failed"
    return "infeasible" if run["error_kind"] == "infeasible" else str(run["state"])


def _counts(run: Row) -> bool:
    return bool(run["current"] and run["state"] == "completed" and run["waiting"] is None and run["excluded"] is None)
