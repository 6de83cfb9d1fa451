"""Retry and resume, late metrics, and the schemas of all documents that the worker sends."""

import asyncio
import json
from typing import Any

import nats
import pytest

from ems_worker.cli import exits
from ems_worker.core.documents import schemas
from tests.support import commands, schema_checks, wait

PLAN = """\
experiment_id: {name}
base_config: {{food: 100}}
parameter_space: {{food: [50, 100]}}
num_replicates_per_run: 2
metrics_to_track: [{metric}]
limits: {{max_attempts: 1}}
"""
# Never published: jobs wait for the metric and fail at its timeout.
LATE = "{name: welfare, from: event, timeout_seconds: 3600}"
MISSING = "{name: welfare, from: event, timeout_seconds: 0.1}"


def publish(deployment: commands.Deployment, name: str, metric: str = "population", *flags: str) -> commands.Ended:
    return commands.run("ems-publish", "-", *flags, env=deployment.env, stdin=PLAN.format(name=name, metric=metric))


def document_of(deployment: commands.Deployment, *arguments: str) -> Any:
    """Runs a command with --json and returns the document that it prints."""
    ended = commands.run("ems", *arguments, "--json", env=deployment.env)
    assert ended.code == exits.Exit.OK, ended
    return json.loads(ended.out)


def test_retry_starts_a_new_round_with_the_failed_jobs(deployment: commands.Deployment) -> None:
    """Repeating the request changes nothing, and another change with the same request id is refused."""
    publish(deployment, "fails-again", "population", "--wait")
    first = document_of(deployment, "retry", "fails-again", "--request-id", "r-1")
    assert schema_checks.check(first) == "ems.change.v1"
    assert (first["changed"], first["retried"], first["state"]) == (True, 4, "running")
    assert document_of(deployment, "retry", "fails-again", "--request-id", "r-1") == first
    ended = commands.run("ems", "watch", "fails-again", env=deployment.env)
    assert ended.code == exits.Exit.FAILED
    details = document_of(deployment, "show", "fails-again")
    assert (details["round"], details["counts"]["failed"]) == (2, 4)
    refused = commands.run("ems", "resume", "fails-again", "--request-id", "r-1", env=deployment.env)
    assert (refused.code, "was used for another change" in refused.err) == (exits.Exit.FAILED, True)


def test_a_change_without_effect_is_reported(deployment: commands.Deployment) -> None:
    """Without failed jobs or a pause a message says so, and an unknown experiment is exit code 1."""
    publish(deployment, "all-well", "population", "--wait")
    for verb in ("retry", "resume"):
        ended = commands.run("ems", verb, "all-well", env=deployment.env)
        assert (ended.code, ended.out) == (exits.Exit.OK, f"all-well: nothing to {verb}, the experiment is completed\n")
        ended = commands.run("ems", verb, "nobody", env=deployment.env)
        assert (ended.code, ended.err) == (exits.Exit.FAILED, "error: there is no experiment nobody\n")


@pytest.mark.long
def test_jobs_that_wait_for_metrics_are_shown_and_wait_again(deployment: commands.Deployment) -> None:
    """`ls` and `show` count waiting jobs, and `retry` after their timeout makes them wait again without a new run."""
    publish(deployment, "late", LATE)
    publish(deployment, "missing", MISSING, "--wait")
    asyncio.run(wait.until(lambda: document_of(deployment, "show", "late")["counts"]["awaiting_metrics"] == 4))
    header, *rows = commands.run("ems", "ls", env=deployment.env).out.splitlines()
    assert header.split()[:5] == ["id", "state", "ended", "jobs", "waiting"]
    (row,) = (row for row in rows if row.startswith("late "))
    assert "4 awaiting metrics" in row
    assert "4 awaiting metrics" in commands.run("ems", "show", "late", env=deployment.env).out.splitlines()[0]
    ended = commands.run("ems", "retry", "missing", env=deployment.env)
    assert (ended.code, ended.out) == (exits.Exit.OK, "missing: retrying 4 jobs (round 2)\n")
    commands.run("ems", "watch", "missing", env=deployment.env)
    jobs = commands.run("ems", "export", "missing", "--attempts", "--format", "jsonl", env=deployment.env).out
    assert [json.loads(line)["attempt"] for line in jobs.splitlines()] == [1, 1, 1, 1]


@pytest.fixture(scope="module")
def sent(deployment: commands.Deployment) -> list[Any]:
    """The documents in the streams and the replies to all queries, after accepted, duplicate and failing plans."""
    publish(deployment, "documented", "{name: population, goal: maximize}", "--wait")
    publish(deployment, "documented", "{name: population, goal: maximize}")  # a duplicate
    publish(deployment, "fails-documented", "population", "--wait")
    return asyncio.run(_everything(deployment.nats.url))


async def _everything(server: str) -> list[Any]:
    connection = await nats.connect(server)
    documents = []
    jetstream = connection.jetstream()
    await jetstream.publish("ems.experiment.submit", b'{"experiment_id": "bad", "unknown": 1}')
    for stream in ("EMS_STATUS", "EMS_RESULTS"):
        subscription = await jetstream.subscribe(">", stream=stream, ordered_consumer=True)
        pending = (await jetstream.stream_info(stream)).state.messages
        documents += [json.loads((await subscription.next_msg(5)).data) for _ in range(pending)]
        await subscription.unsubscribe()
    experiment: dict[str, Any] = {"experiment_id": "documented"}
    requests: dict[str, Any] = {
        "validate": {"experiment_id": "x", "base_config": {"a": 1}, "parameter_space": {"a": [1, 2]}},
        "list": {},
        "get": experiment,
        "jobs": experiment | {"attempts": True},
        "points": experiment,
        "results": experiment,
        "config": {"simulation_id": "documented-p000000-r000-a1"},
        "resume": experiment | {"request_id": "request-1"},
        "retry": {"experiment_id": "fails-documented", "request_id": "request-2"},
    }
    for verb, request in requests.items():
        reply = await connection.request(f"ems.api.{verb}", json.dumps(request).encode(), timeout=10)
        assert not reply.headers, (verb, reply.headers)
        documents.append(json.loads(reply.data))
    await connection.close()
    return documents


def test_every_document_conforms_to_its_schema(sent: list[Any]) -> None:
    """Every kind of document is sent, and each has exactly the fields that its schema describes."""
    assert {schema_checks.check(document) for document in sent} == set(schemas.DOCUMENTS)
    verdicts = {document["decision"] for document in sent if document["schema"] == "ems.decision.v1"}
    assert verdicts >= {"accepted", "duplicate"}


def test_schema_prints_the_published_schemas() -> None:
    """A schema is found by its short or full name, and an unknown name gives the list of names."""
    named = commands.run("ems", "schema").out.split()
    assert named == schemas.names()
    for name in ("status", "ems.status.v1", "plan"):
        ended = commands.run("ems", "schema", name)
        assert json.loads(ended.out) == schemas.find(name)
    ended = commands.run("ems", "schema", "nothing")
    assert (ended.code, "there are plan, decision" in ended.err) == (exits.Exit.USAGE, True)
