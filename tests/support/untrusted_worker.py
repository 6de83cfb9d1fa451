"""A hostile worker: it answers every query of the commands, with hostile text wherever a text is possible."""

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import StreamConfig

from ems_worker.core.lifecycle.steering import Verb
from tests.support import broker, hostile_words

H = hostile_words.ALL
_AGGREGATE = {"n": 1, "mean": 1.0, "std": 0.5, "min": 1.0, "max": 1.0, "missing": 1}
_COUNTS = {"completed": 1, "failed": 1, "awaiting_metrics": 1}
_STATUS = {
    "schema": "ems.status.v1",
    "experiment_id": H,
    "experiment_name": H,
    "description": f"{H}\nreef completed",
    "group": H,
    "tags": [H],
    "state": H,
    "reason": H,
    "pauses": [H],
    "round": 2,
    "revision": 1,
    "counts": _COUNTS,
    "total": 3,
    "progress": 0.5,
    "throughput": 1.0,
    "eta_seconds": 5.0,
    "publisher": H,
    "created_at": H,
    "started_at": H,
    "finished_at": None,
    "metrics": {H: _AGGREGATE, f"{H}2": {**_AGGREGATE, "n": 0}},
    "best": {"point": 0, "metric": H, "goal": "maximize", "n": 1, "mean": 1.0, "std": None, "params": {H: H}},
    "parameters": {H: H},
    "headings": {kind: {H: {"label": H, "unit": H}} for kind in ("parameters", "metrics")},
    "points": 1,
    "replicates": 1,
}
_POINT = {"point": 0, "run_id_suffix": H, "counts": _COUNTS, "params": {H: H}, "metrics": {H: _AGGREGATE}}
_JOB: dict[str, Any] = {
    "experiment_id": H,
    "simulation_id": H,
    "point": 0,
    "replicate": 0,
    "attempt": 1,
    "run_id_suffix": H,
    "seed": 1,
    "state": "failed",
    "params": {H: H},
    "labels": {H: H},
    "metrics": {H: 1.0},
    "artifacts": {H: H},
    "error": {"kind": H, "message": H},
    "model_version": H,
    "config_sha": H,
    "submitted_at": H,
    "started_at": H,
    "finished_at": H,
    "job_revision": 1,
    "seq": 1,
}
_CHANGE = {
    "schema": "ems.change.v1",
    "request_id": H,
    "experiment_id": H,
    "changed": True,
    "refused": False,
    "state": H,
    "round": H,
    "reason": H,
    "dry_run": False,
    "counts": {H: {H: 5}, "new": {"pending": 1}},
    "added": 1,
    "withdrawn": 1,
    "unchanged": 1,
    "applied": False,
    "request": {"reason": H, "where": H, "priority": H},
}
_CHANGES = [{**_CHANGE, "verb": "retry", "so_far": {"counts": {H: {H: 1}}}}]
_CONFIG = {"config": f"food: {H}\n", "seed": 1, "config_sha": H, "computed_sha": H, "next_offset": None}
_PROBLEM = {"code": H, "path": H, "message": H, "line": 1, "column": 1, "suggestion": H}
_ANSWERS = {
    # It has the id that the commands name, which must be found before they ask for anything else.
    "list": {"experiments": [_STATUS, {**_STATUS, "experiment_id": "reef"}], "cursor": None},
    "get": {**_STATUS, "plan_version": 1, "pauses": [H], "cancelling": H, "overrides": {H: H}, "changes": _CHANGES},
    "points": {"points": [_POINT], "cursor": None},
    "jobs": {"jobs": [_JOB], "cursor": None},
    "config": _CONFIG,
    "plan": {"text": json.dumps({"base_config": {"food": H}}, ensure_ascii=False), "version": 1, "next_offset": None},
    "remove": {**_CHANGE, "verb": "remove"},
    **{verb.value: {**_CHANGE, "verb": verb.value} for verb in Verb},
    "resume": {**_CHANGE, "verb": "resume", "changed": False},
    "close": {**_CHANGE, "verb": H},
}
_STREAMS = {
    "EMS_PLANS": ["ems.experiment.submit", "ems.experiment.submit.*"],
    "EMS_STATUS": ["ems.experiment.status.*", "ems.experiment.decision.*"],
    "EMS_DLQ": ["ems.dlq.*"],
}
_LETTER = {
    "Ems-Reason": H,
    "Ems-Subject": hostile_words.CLIPBOARD,
    "Ems-Stream": hostile_words.CLIPBOARD,
    "Ems-Sequence": "1",
}


@contextlib.asynccontextmanager
async def working(url: str) -> AsyncIterator[None]:
    """Runs the worker. It accepts plans of the publisher `accepted`, rejects all others, and knows every experiment.

    Dead letter 1 contains text, dead letter 2 is stored by reference.
    """
    client = await nats.connect(url)
    try:
        stream = client.jetstream()
        for name, subjects in _STREAMS.items():
            await stream.add_stream(StreamConfig(name=name, subjects=subjects, allow_direct=True))
        for more in ({}, {"Ems-By-Reference": "true"}):
            await stream.publish("ems.dlq.plan", H.encode(), headers=_LETTER | more)
        for state, revision in (("running", 1), ("failed", 2)):
            status = {**_STATUS, "experiment_id": "reef", "state": state, "revision": revision}
            await stream.publish("ems.experiment.status.reef", json.dumps(status).encode())
        await client.subscribe("ems.api.*", cb=_answer)
        decide = _decide(client)
        for subject in _STREAMS["EMS_PLANS"]:
            await client.subscribe(subject, cb=decide)
        await broker.subscribed(client)
        yield
    finally:
        await client.close()


async def _answer(message: Msg) -> None:
    answer = _ANSWERS.get(message.subject.rpartition(".")[2])
    if answer is not None:
        await message.respond(json.dumps(answer).encode())


def _decide(client: Client) -> Any:
    count = 0

    async def decide(message: Msg) -> None:
        nonlocal count
        count += 1
        accepted = message.subject.endswith(".accepted")
        decision = {
            "schema": "ems.decision.v1",
            "decision": "accepted" if accepted else "rejected",
            "experiment_id": "reef",
            "points": 1,
            "jobs": 1,
            "submission": {"stream": "EMS_PLANS", "seq": count},
            "errors": [] if accepted else [_PROBLEM],
            "warnings": [_PROBLEM],
        }
        # It is stored after the plan: the client compares the times of the two.
        await client.jetstream().publish(f"ems.experiment.decision.{count}", json.dumps(decision).encode())

    return decide
