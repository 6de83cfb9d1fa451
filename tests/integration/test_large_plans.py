"""Plans of any size, wrapping and publisher, from the broker through the worker to a recording orchestrator."""

import asyncio
import gzip
import json
import random
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from nats.aio.client import Client

from ems_worker import client
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from tests.support import commands

GENOMES, WEIGHTS = 100, 4_000
BASE = {"simulation_layer": {"brain": {"weights": [0.0]}, "steps": 10}}
PATH = "simulation_layer.brain.weights"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[commands.Deployment]:
    """A broker, a worker and the oracle, which accepts requests up to gRPC's default limit of 4 MiB."""
    directory = tmp_path_factory.mktemp("large")
    started = commands.Deployment(directory, orchestrator=["--log", str(directory / "oracle.txt")])
    started.calls = directory / "oracle.txt"  # type: ignore[attr-defined]  # for these tests only
    try:
        started.start()
        yield started
    finally:
        started.stop()


def accepted(deployment: commands.Deployment, experiment_id: str) -> list[str]:
    """The runs of an experiment that the oracle accepted, according to its log on disk."""
    log: Path = deployment.calls  # type: ignore[attr-defined]
    lines = (line.split(" ")[:2] for line in log.read_text().splitlines())
    return [name for event, name in lines if event == "accepted" and name.startswith(f"{experiment_id}-p")]


def plan(experiment_id: str, **more: Any) -> dict[str, Any]:
    return {"experiment_id": experiment_id, "base_config": BASE, "metrics_to_track": ["score"], **more}


async def send(client_: Client, data: bytes, headers: dict[str, str] | None = None, token: str = "") -> dict[str, Any]:
    """Publishes a plan without this project's client, and waits for the decision that belongs to its PubAck."""
    subject = "ems.experiment.submit" + token
    ack = await client_.jetstream().publish(subject, data, headers=headers)
    live = await client_.subscribe(f"ems.experiment.decision.{ack.seq}")
    try:
        stored = await client_.jetstream().get_last_msg("EMS_STATUS", f"ems.experiment.decision.{ack.seq}", direct=True)
        raw = stored.data or b""
    except nats.js.errors.NotFoundError:
        raw = (await live.next_msg(timeout=40)).data
    document: dict[str, Any] = json.loads(raw)
    assert document["submission"] == {"stream": "EMS_PLANS", "seq": ack.seq}
    return document


@pytest.mark.long
@pytest.mark.timeout(120)
def test_a_hundred_genomes_of_four_thousand_weights(deployment: commands.Deployment) -> None:
    """8 MB of JSON go through the object store, and every run starts once.

    Results have the digests of the weights instead of the weights.
    """

    async def work() -> None:
        draw = random.Random(1)
        genomes = [[draw.gauss(0, 1) for _ in range(WEIGHTS)] for _ in range(GENOMES)]
        runs = [{"run_id_suffix": f"g{n}", "params_override": {PATH: genome}} for n, genome in enumerate(genomes)]
        data = json.dumps(plan("evolution", runs=runs)).encode()
        assert len(data) > 7_500_000
        async with client.EmsClient(deployment.nats.url, publisher="evolution") as ems:
            ack = await ems.publish(data)
            decision = await ems.decision(ack.seq, timeout=40)
            assert (decision["decision"], decision["jobs"]) == ("accepted", GENOMES)
            status = await ems.wait("evolution")
            assert (status["state"], status["counts"]["completed"]) == ("completed", GENOMES)
            results = [result async for result in ems.results("evolution")]
            assert len(results) == GENOMES
            for result in results:
                assert result["params"][PATH].keys() == {"sha256", "bytes"}
                assert result["params"][PATH]["bytes"] > 60_000
            assert len(json.dumps(status)) < 10_000
            points = [point async for point in ems.points("evolution")]
            assert max(len(json.dumps(point)) for point in points) < 10_000
            config = await ems.config("evolution-p000042-r000-a1")
            assert config.config_sha == config.computed_sha
            assert repr(genomes[42][0]) in config.content

    asyncio.run(work())
    names = accepted(deployment, "evolution")
    assert sorted(names) == [f"evolution-p{point:06d}-r000-a1" for point in range(GENOMES)]


def test_a_plan_is_the_same_in_every_wrapping(deployment: commands.Deployment) -> None:
    """Sent as JSON, as YAML, with gzip, in an envelope and as an object, it is one experiment and its duplicates."""

    async def work() -> None:
        text = json.dumps(plan("wrapped", runs=[{}])).encode()
        yaml = (
            b"experiment_id: wrapped\nbase_config:\n  simulation_layer:\n    brain: {weights: [0.0]}\n    steps: 10\n"
            b"metrics_to_track: [score]\nruns: [{}]\n"
        )
        other = await nats.connect(deployment.nats.url)
        try:
            put = await (await other.jetstream().object_store("EMS_PLAN_OBJECTS")).put("mine", gzip.compress(text))
            assert put.digest is not None
            by_object = {"Ems-Plan-Object": "mine", "Ems-Plan-Digest": put.digest}
            first = await send(other, gzip.compress(text))
            assert first["decision"] == "accepted"
            for data, headers in (
                (text, None),
                (yaml, None),
                (envelope(text), None),
                (envelope(yaml), None),
                (b"", by_object),
            ):
                again = await send(other, data, headers)
                assert (again["decision"], again["plan_sha"]) == ("duplicate", first["plan_sha"])
        finally:
            await other.close()

    asyncio.run(work())


def envelope(payload: bytes) -> bytes:
    return GenericEventRequest(event_type_key="ems.experiment.submit.v1", event_payload=payload).SerializeToString()


def test_a_single_configuration_over_the_orchestrators_limit_is_refused_at_intake(
    deployment: commands.Deployment,
) -> None:
    """The decision and `validate` name the point and its largest parameter."""

    async def work() -> None:
        runs = [{"params_override": {PATH: [0.5] * 3}}, {"params_override": {PATH: [0.123456789] * 220_000}}]
        data = json.dumps(plan("huge", runs=runs)).encode()
        async with client.EmsClient(deployment.nats.url) as ems:
            ack = await ems.publish(data)
            decision = await ems.decision(ack.seq, timeout=40)
            assert decision["decision"] == "rejected"
            [error] = decision["errors"]
            assert error["code"] == "configuration_too_large"
            assert "point 1" in error["message"]
            assert PATH in error["message"]
            assert (await ems.validate(data))["errors"][0]["code"] == "configuration_too_large"

    asyncio.run(work())
    assert accepted(deployment, "huge") == []


def test_results_and_points_have_the_trace_of_their_plan(deployment: commands.Deployment) -> None:
    """They have the same header as the plan."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async def work() -> None:
        async with client.EmsClient(deployment.nats.url) as ems:
            await ems.publish(json.dumps(plan("traced", runs=[{}])).encode(), traceparent=trace)
            other = await nats.connect(deployment.nats.url)
            try:
                for kind in ("result", "point"):
                    subject = f"ems.experiment.{kind}.traced"
                    found = await other.jetstream().subscribe(subject, ordered_consumer=True)
                    assert ((await found.next_msg(timeout=20)).headers or {})["traceparent"] == trace
            finally:
                await other.close()

    asyncio.run(work())


def test_a_publisher_that_sends_too_many_plans_gets_the_code_429(deployment: commands.Deployment) -> None:
    """Plans within its limit are decided, and so are the plans of other publishers."""

    async def work() -> None:
        other = await nats.connect(deployment.nats.url)
        try:
            stream = other.jetstream()
            # The plans differ, because a repeated plan is answered without being counted.
            texts = [json.dumps({"experiment_id": f"hasty-{number}"}).encode() for number in range(601)]
            acks = [await stream.publish("ems.experiment.submit.hasty", text) for text in texts]
            async with client.EmsClient(deployment.nats.url) as ems:
                last = await ems.decision(acks[-1].seq, timeout=60)
                assert [error["code"] for error in last["errors"]] == ["429"]
                before = await ems.decision(acks[-2].seq, timeout=5)
                assert "429" not in [error["code"] for error in before["errors"]]
            patient = await send(other, texts[0], token=".patient")
            assert "429" not in [error["code"] for error in patient["errors"]]
        finally:
            await other.close()

    asyncio.run(work())


@pytest.mark.long
def test_a_plan_whose_object_is_unusable_is_rejected(deployment: commands.Deployment) -> None:
    """The object may have another digest, the message may lack the digest, or the object may never arrive."""

    async def work() -> None:
        other = await nats.connect(deployment.nats.url)
        try:
            bucket = await other.jetstream().object_store("EMS_PLAN_OBJECTS")
            await bucket.put("late", b"old")
            wrong = {"Ems-Plan-Object": "late", "Ems-Plan-Digest": "0" * 64}
            assert [error["code"] for error in (await send(other, b"", wrong))["errors"]] == ["plan_object_digest"]
            without = {"Ems-Plan-Object": "late"}
            assert [error["code"] for error in (await send(other, b"", without))["errors"]] == ["plan_object_digest"]
            missing = {"Ems-Plan-Object": uuid.uuid4().hex, "Ems-Plan-Digest": "0" * 64}
            decision = await send(other, b"", missing)
            assert [error["code"] for error in decision["errors"]] == ["plan_object_missing"]
        finally:
            await other.close()

    asyncio.run(work())


def test_a_reply_is_sent_only_to_an_inbox(deployment: commands.Deployment) -> None:
    """Otherwise a publisher could make the worker publish events of runs."""

    async def work() -> None:
        other = await nats.connect(deployment.nats.url)
        try:
            inbox = other.new_inbox()
            answers = await other.subscribe(inbox)
            spoofed = await other.subscribe("sim.run_completed")
            text = json.dumps(plan("replied", runs=[{}])).encode()
            await send(other, text, {"Ems-Reply-To": "sim.run_completed"})
            decision = await send(other, text, {"Ems-Reply-To": inbox})
            assert json.loads((await answers.next_msg(timeout=10)).data) == decision
            # The run of the first message completes: the only event on that subject is from the orchestrator.
            async with client.EmsClient(deployment.nats.url) as ems:
                await ems.wait("replied")
            assert b"ems.decision" not in (await spoofed.next_msg(timeout=10)).data
            assert spoofed.pending_msgs == 0
        finally:
            await other.close()

    asyncio.run(work())
