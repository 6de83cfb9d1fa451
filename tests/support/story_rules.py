"""What holds at the end of every story: nothing is lost, twice or wrong; each change was applied once and closed."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.support import stage, story_found
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
    problems += [f"the worker's log: {line}" for line in theatre.worker.lines() if _is_bad(line)]
    assert not problems, "\n".join([f"{len(problems)} contradictions", *problems[:20]])


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
        if name in rows and rows[name]["state"] != "lost":
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
        ours = (run["simulation_id"], run["seed"], state, run["excluded"], run["ended_seq"])
        theirs = [
            (last["simulation_id"], last["seed"], last["state"], last.get("excluded"), last["seq"])
            for last in revisions[run["job_revision"]]
        ]
        if ours not in theirs:
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


def changes_are_closed_and_published(found: Found, desk: Desk) -> Iterator[str]:
    """Each change is judged, applied, and published twice; the last document is the manifest's."""
    documents: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for message in found.results_stream:
        if ".change." in message.subject:
            key = message.subject.rpartition(".")[2], message.document["request_id"]
            if message.document not in documents[key]:
                documents[key].append(message.document)
    for row in found.changes:
        key = row["experiment_id"], row["request_id"]
        if row["applied_ms"] is None or row["judged_point"] is not None or row["published"] != 2:
            yield f"{key} {row['verb']} isn't closed: {row}"
        applied = [document["applied"] for document in documents[key]]
        if not desk.restores and applied != [False, True]:
            yield f"{key} {row['verb']} was published as applied {applied}"
        if not applied or not applied[-1]:
            yield f"{key} {row['verb']}: the last document isn't applied: {applied}"
        elif not desk.restores:
            last = documents[key][-1]
            ours = json.loads(row["counts"]), bool(row["changed"]), row["state"], row["round"]
            if ours != (last["counts"], last["changed"], last["state"], last["round"]):
                yield f"{key} {row['verb']}: published is {last}, recorded {row}"


def answers_agree_with_changes(found: Found, desk: Desk) -> Iterator[str]:
    """What was answered is recorded; a dry run and a refused request left nothing."""
    recorded = {(row["request_id"], row["experiment_id"]): row for row in found.changes}
    for asked in desk.asked:
        request_id = asked.body["request_id"]
        ours = [row for row in found.changes if row["request_id"] == request_id]
        if asked.dry or (asked.refused and not asked.answers):
            partly = "group" in asked.body  # some of its experiments may have taken it
            if ours and (asked.dry or not partly) and not _was_unanswered(asked.refused):
                yield f"{asked} left {ours}"
            continue
        for epoch, answer in asked.answers:
            row = recorded.get((request_id, answer["experiment_id"]))
            if row is None:
                yield f"{asked.verb} {asked.body} was answered {answer}, and isn't recorded"
            elif epoch == desk.restores:
                if answer["counts"] is not None and answer["counts"] != json.loads(row["counts"]):
                    yield f"{request_id} was answered {answer['counts']}, and has {row['counts']}"
                if answer["counts"] is not None and answer["changed"] != bool(row["changed"]):
                    yield f"{request_id} was answered changed {answer['changed']}, and has {row['changed']}"


def effects_happened_once(found: Found, desk: Desk) -> Iterator[str]:
    """The jobs are as the counts of the changes say."""
    for row in found.experiments:
        name = row["experiment_id"]
        flows: Counter[tuple[str, str, str]] = Counter()
        mine = [change for change in found.changes if change["experiment_id"] == name]
        for change in mine:
            for before, to in json.loads(change["counts"]).items():
                for after, jobs in to.items():
                    flows[change["verb"], before, after] += jobs
        runs = found.of(name)
        told = {
            "excluded": _flow(flows, after="excluded") - _flow(flows, before="excluded"),
            "cancelled before they were sent": _flow(flows, before="pending", after="cancelled"),
            "attempts that were requested": _flow(flows, "retry", after="pending")
            + _flow(flows, "extend", before="excluded", after="pending"),
            "in all": desk.jobs(name) + _flow(flows, before="new"),
        }
        seen = {
            "excluded": sum(run["current"] and run["excluded"] is not None for run in runs),
            "cancelled before they were sent": sum(_was_never_sent(run) for run in runs),
            "attempts that were requested": sum(run["attempt"] > 1 and run["due_at"] is None for run in runs),
            "in all": row["jobs"],
        }
        if _flow(flows, "extend") or any(change["withdrawn"] for change in mine):
            # A withdrawal excludes jobs that it counts as cancelled, and new replicates of an excluded point are too.
            del told["excluded"], seen["excluded"]
        if told != seen:
            yield f"{name}: the jobs are {seen}; the changes say {told}"


def nothing_is_a_dead_letter(found: Found, desk: Desk) -> Iterator[str]:
    """No message was given up."""
    if found.dead:
        yield f"{len(found.dead)} dead letters: {[(letter.subject, letter.headers) for letter in found.dead[:5]]}"


RULES = (
    every_plan_is_an_experiment,
    everything_has_ended,
    nothing_started_twice_or_unrecorded,
    bans_are_kept,
    statuses_agree,
    results_agree,
    points_agree,
    each_round_settled_once,
    changes_are_closed_and_published,
    answers_agree_with_changes,
    effects_happened_once,
    nothing_is_a_dead_letter,
)


def _flow(
    flows: Mapping[tuple[str, str, str], int],
    verb: str | None = None,
    before: str | None = None,
    after: str | None = None,
) -> int:
    """How many jobs went from one state to another by a verb; None: any."""
    wanted = (verb, before, after)
    return sum(
        jobs
        for names, jobs in flows.items()
        if all(want in (None, name) for want, name in zip(wanted, names, strict=True))
    )


def _was_never_sent(run: Row) -> bool:
    return (
        run["state"] == "cancelled" and run["submitted_at"] is None and run["stop_reason"] in ("cancelled", "straggler")
    )


def _is_bad(line: Row) -> bool:
    return line["event"] in _BAD_EVENTS or line["level"] == "critical" or "exception" in line


def _was_unanswered(refused: Sequence[str]) -> bool:
    """Whether a refusal leaves open what became of the request."""
    return any("timeout" in words for words in refused)


def _bucket(run: Row) -> str:
    if run["waiting"] == "missing":
        return "failed"
    return "infeasible" if run["error_kind"] == "infeasible" else str(run["state"])


def _counts(run: Row) -> bool:
    return bool(run["current"] and run["state"] == "completed" and run["waiting"] is None and run["excluded"] is None)
