"""Changes of experiments, late metrics, and the schemas of all documents that the worker sends."""

import asyncio
import json
from pathlib import Path
from typing import Any

import nats
import pytest

from ems_worker import client, errors
from ems_worker.cli import exits
from ems_worker.core.documents import schemas
from tests.support import commands, schema_checks, servers, wait, whole

PLAN = """\
experiment_id: {name}
group: documents
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
    assert (first["changed"], first["counts"], first["state"]) == (True, {"failed": {"pending": 4}}, "running")
    assert document_of(deployment, "retry", "fails-again", "--request-id", "r-1") == first
    ended = commands.run("ems", "watch", "fails-again", env=deployment.env)
    assert ended.code == exits.Exit.FAILED
    details = document_of(deployment, "show", "fails-again")
    assert (details["round"], details["counts"]["failed"]) == (2, 4)
    refused = commands.run("ems", "resume", "fails-again", "--request-id", "r-1", env=deployment.env)
    assert (refused.code, "was used for another change" in refused.err) == (exits.Exit.FAILED, True)


def test_a_change_without_effect_is_reported(deployment: commands.Deployment) -> None:
    """A message says why, and an unknown experiment is exit code 1."""
    publish(deployment, "all-well", "population", "--wait")
    for verb, why in (("retry", "no job is to be retried"), ("resume", "it has ended (completed)")):
        ended = commands.run("ems", verb, "all-well", env=deployment.env)
        assert (ended.code, ended.out) == (exits.Exit.OK, f"all-well: nothing changed: {why}\n")
        ended = commands.run("ems", verb, "nobody", env=deployment.env)
        assert (ended.code, ended.err) == (exits.Exit.FAILED, "error: there is no experiment nobody\n")


def test_a_held_experiment_starts_when_it_is_resumed(deployment: commands.Deployment) -> None:
    """`ems-publish --hold` and `ems show` say what it waits for."""
    publish(deployment, "held", "population", "--hold")
    ended = commands.run("ems", "ls", "--state", "paused", env=deployment.env)
    assert "its plan holds it back until `resume`" in ended.out
    assert commands.run("ems", "resume", "held", env=deployment.env).out == "held: resumed, and running\n"
    assert commands.run("ems", "watch", "held", env=deployment.env).code == exits.Exit.OK


def test_running_jobs_are_stopped_before_a_cancellation_is_complete(deployment: commands.Deployment) -> None:
    """With --wait, `ems cancel` returns when nothing is in flight any more; `ems watch` ends with exit code 1."""
    publish(deployment, "slow-cancelled")
    document_of(deployment, "pause", "slow-cancelled", "--wait", "--timeout", "30")
    change = document_of(deployment, "cancel", "slow-cancelled", "--reason", "a mistake", "--wait", "--timeout", "30")
    assert (change["applied"], change["reason"]) == (True, "a mistake")
    assert sum(sum(after.values()) for after in change["counts"].values()) == 4
    details = document_of(deployment, "show", "slow-cancelled")
    assert (details["state"], details["counts"]["cancelled"]) == ("cancelled", 4)
    assert details["changes"][0]["request"]["reason"] == "a mistake"
    assert commands.run("ems", "watch", "slow-cancelled", env=deployment.env).code == exits.Exit.FAILED


async def test_a_worker_on_hold_starts_nothing_until_it_is_resumed(tmp_path: Path) -> None:
    """`ems-worker run` with EMS_HOLD accepts plans and says why nothing starts. `ems resume --all` lets it start."""
    async with (
        servers.NatsServer(tmp_path / "nats") as broker,
        whole.Oracle(tmp_path, broker.url) as oracle,
        whole.Worker(tmp_path, broker.url, oracle.target, EMS_HOLD="true"),
        client.EmsClient(broker.url) as ems,
    ):
        await ems.publish(PLAN.format(name="waits", metric="population").encode())
        await wait.until(lambda: reason(ems), timeout=20, what="the reason")
        assert "ems resume --all" in str(await reason(ems))
        assert (await ems.get("waits"))["counts"]["pending"] == 4
        assert (await ems.resume(all=True))["resumed"] is True
        assert (await ems.wait("waits"))["state"] == "completed"
        assert (await ems.resume(all=True))["resumed"] is False


async def reason(ems: client.EmsClient) -> str | None:
    """Why nothing starts; None while the experiment is unknown or has no reason."""
    try:
        found: str | None = (await ems.get("waits"))["reason"]
    except errors.NotFound:
        return None
    return found


@pytest.mark.long
def test_jobs_that_wait_for_metrics_are_shown_and_wait_again(deployment: commands.Deployment) -> None:
    """`ls` and `show` count waiting jobs, and `retry` after their timeout makes them wait again without a new run."""
    publish(deployment, "late", LATE)
    publish(deployment, "missing", MISSING, "--wait")
    asyncio.run(wait.until(lambda: document_of(deployment, "show", "late")["counts"]["awaiting_metrics"] == 4))
    header, *rows = commands.run("ems", "ls", "--flat", env=deployment.env).out.splitlines()
    assert header.split()[:5] == ["id", "state", "progress", "jobs", "waiting"]
    (row,) = (row for row in rows if row.startswith("late "))
    assert "4 awaiting metrics" in row
    assert "4 awaiting metrics" in commands.run("ems", "show", "late", env=deployment.env).out.splitlines()[0]
    ended = commands.run("ems", "retry", "missing", env=deployment.env)
    assert (ended.code, ended.out) == (exits.Exit.OK, "missing: retried 4 jobs (4 failed), round 2\n")
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
        "plan": experiment,
        "resume": experiment | {"request_id": "request-1"},
        "retry": {"experiment_id": "fails-documented", "request_id": "request-2"},
        "exclude": {"group": "documents", "where": "replicate == 0", "request_id": "request-3"},
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
