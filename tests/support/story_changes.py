"""What holds of the changes of a story: each was applied once, is closed, and is published as it was answered."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from tests.support.evidence import Row
from tests.support.story_desk import Desk
from tests.support.story_found import Found


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
            if "group" in asked.body and not answer["changed"] and not _is_of(row, answer):
                # One experiment of a group refused it, of which nothing is recorded.
                continue
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


RULES = (changes_are_closed_and_published, answers_agree_with_changes, effects_happened_once)


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
    # After a restore, a run is known by its events alone.
    unsent = run["submitted_at"] is None and run["started_at"] is None
    return run["state"] == "cancelled" and unsent and run["stop_reason"] in ("cancelled", "straggler")


def _is_of(row: Row | None, answer: Mapping[str, Any]) -> bool:
    """Whether the answer is about the change as this row has it."""
    received = datetime.fromisoformat(answer["received_at"]).timestamp()
    return row is not None and round(1000 * received) == row["received_ms"]


def _was_unanswered(refused: Sequence[str]) -> bool:
    """Whether a refusal leaves open what became of the request."""
    return any("timeout" in words for words in refused)
