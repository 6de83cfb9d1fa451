"""Hostile messages for every way into the worker, drawn from a seed: the same seed gives the same messages."""

import base64
import gzip
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2

BUCKET = "EMS_PLAN_OBJECTS"
EVENTS = ("sim.run_started", "sim.run_completed", "sim.run_failed", "sim.run_metrics")
VERBS = ("validate", "list", "get", "jobs", "points", "results", "config", "resume", "retry", "nothing")
# Subjects that a requester would like the worker to publish to.
TARGETS = (
    "$JS.API.STREAM.DELETE.EMS_RESULTS",
    "$JS.API.STREAM.PURGE.SIM_EVENTS",
    "$JS.API.CONSUMER.DELETE.EMS_PLANS.ems-worker-plans",
    "$JS.ACK.EMS_PLANS.ems-worker-plans.1.1.1.1700000000000000000.0",
    "sim.run_completed",
    "sim.run_failed.x",
    "ems.experiment.submit",
    "ems.experiment.status.fuzz-0",
    "ems.api.retry",
    "ems.dlq.plan",
    "$SRV.PING",
    "_INBOX.ok",
    "_INBOX." + "x" * 5000,
    "_INBOX..x",
    "_INBOX.*",
    "_INBOX.>",
    "_INBOX.a\tb",
    "_INBOX.\u202e",
    "_INBOX",
    "x",
)
# What readers of YAML, JSON and headers have stumbled over.
_WORDS = (
    b"&a ",
    b"*a",
    b"<<: *a",
    b"!!python/object/apply:os.system ['true']",
    b"!!binary ",
    b"---\n",
    b"...\n",
    b"%YAML 9.9\n",
    b"{" * 200,
    b"[" * 5000,
    b"- " * 300,
    b"? ",
    b": ",
    b"|\n",
    b">-\n",
    b"\x00",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\xed\xa0\x80",
    b'"\\ud800"',
    b'"\\u0000"',
    b"1e999",
    b"-1e999",
    b"NaN",
    b".inf",
    b"1" * 5000,
    b"0x" + b"f" * 900,
    b"1_000",
    b"12:30:45",
    b"no",
    b"null",
    b"~",
    b"\t",
    b"\r\n",
    b"\x85",
    b"\xe2\x80\xa8",
    b"{expr: '9**9**9'}",
    b"{expr: '().__class__'}",
    b"{expr: 'a' * 99999999}",
    b"{range: {start: 0, stop: 1e300, step: 1e-300}}",
    b"{dist: normal}",
    b"{file: /etc/passwd}",
    b"\x1b]52;c;eA==\x07",
    b"parameter_space",
    b"num_replicates_per_run: 99999999999999999999",
    b"a.b.c.d",
)


@dataclass(frozen=True, slots=True)
class Hostile:
    """A message, and the way in that it tries. `raw` is published as the bytes of a control line, not by a client."""

    way: str
    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    raw: bytes = b""


def draw(chance: random.Random) -> Hostile:
    """The next message."""
    return chance.choice(_WAYS)(chance)


def _plan(chance: random.Random) -> dict[str, Any]:
    number = chance.randrange(1000)
    return {
        "experiment_id": f"fuzz-{number}",
        "base_config": {"food": 1, "heat": 1.5, "world": {"width": 3}, "list": [1, 2]},
        "parameter_space": {
            "food": list(range(chance.randrange(1, 4))),
            "world.width": {"range": {"start": 1, "stop": 3, "step": 1}},
        },
        "num_replicates_per_run": 1,
        "metrics_to_track": [{"name": "population", "goal": "maximize"}],
        "constraints": ["food < 3"],
        "tags": ["fuzz"],
    }


def _value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, often a wrong one."""
    plain: list[Any] = [
        None,
        True,
        -1,
        0,
        10**30,
        1.5e308,
        "",
        "x",
        "a" * 300,
        "\x00",
        "\u202e",
        "é" * 50,
        "../../etc/passwd",
        "2026-01-01T00:00:00Z",
    ]
    if depth > 3 or chance.random() < 0.6:
        return chance.choice(plain)
    if chance.random() < 0.5:
        return [_value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {
        chance.choice(["a", "simulation_id", "metrics", "", "x" * 300]): _value(chance, depth + 1) for _ in range(3)
    }


def _bent(chance: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """The document with some of its values, or keys, replaced."""
    bent = dict(document)
    for _ in range(chance.randrange(3)):
        key = chance.choice([*document, "limits", "design", "runs", "seeds", "inject", "unknown"])
        if chance.random() < 0.2:
            bent.pop(key, None)
        else:
            bent[key] = _value(chance)
    return bent


def _mutated(chance: random.Random, data: bytes) -> bytes:
    """The bytes with some turned, cut, doubled or put in."""
    bent = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(bent) + 1)
        match chance.randrange(4):
            case 0 if at < len(bent):
                bent[at] = chance.randrange(256)
            case 1:
                del bent[at : at + chance.randrange(20)]
            case 2:
                bent[at:at] = bent[at : at + chance.randrange(200)] * chance.randrange(1, 20)
            case _:
                bent[at:at] = chance.choice(_WORDS)
    return bytes(bent[:400_000])


def _text(chance: random.Random) -> bytes:
    """A plan's text, mostly a wrong one."""
    text = json.dumps(_bent(chance, _plan(chance))).encode()
    return text if chance.random() < 0.3 else _mutated(chance, text)


def _wrapped(chance: random.Random, data: bytes, key: str) -> bytes:
    """In what the protocol allows around a plan or an event, whole or broken."""
    if chance.random() < 0.5:
        envelope = envelope_pb2.GenericEventRequest(
            event_id="1",
            event_type_key=chance.choice([key, key, "", "x", "ems.experiment.submit.v2"]),
            event_payload=data,
            timestamp_ns=chance.choice([0, -1, 2**63 - 1]),
            payload_content_type=chance.choice(["", "application/json", "application/x-protobuf", "x" * 300]),
        )
        data = envelope.SerializeToString()
    if chance.random() < 0.3:
        data = gzip.compress(data)
    return _mutated(chance, data) if chance.random() < 0.5 else data


def _headers(chance: random.Random) -> dict[str, str]:
    names = [
        "Content-Type",
        "Ems-Reply-To",
        "Ems-Plan-Object",
        "Ems-Plan-Digest",
        "traceparent",
        "Nats-Rollup",
        "X" * 200,
        "Status",
    ]
    values = [
        *TARGETS[:13],
        "",
        "SHA-256=",
        "SHA-256=" + "A" * 44,
        "00-" + "0" * 32 + "-1-01",
        "zz",
        "é",
        "a" * 900,
        "fuzz-object",
    ]
    return {
        name: chance.choice(values).replace("\t", " ").strip() or "x"
        for name in chance.sample(names, chance.randrange(4))
    }


def _plans(chance: random.Random) -> Hostile:
    subject = chance.choice(
        ["ems.experiment.submit", "ems.experiment.submit.fuzz", "ems.experiment.submit." + "n" * 200]
    )
    data = _text(chance)
    if chance.random() < 0.4:
        data = _wrapped(chance, data, "ems.experiment.submit.v1")
    return Hostile("plans", subject, data, _headers(chance))


def _events(chance: random.Random) -> Hostile:
    subject = chance.choice(EVENTS) + chance.choice(["", "", ".x", ".fuzz." + "y" * 100])
    name = f"fuzz-{chance.randrange(1000)}-p{chance.randrange(3):06d}-r000-a1"
    kind = chance.choice([run_events_pb2.RunStarted, run_events_pb2.RunCompleted, run_events_pb2.RunFailed])
    if chance.random() < 0.5:
        data = kind(simulation_id=name).SerializeToString()
    else:
        event = {
            "simulation_id": name,
            "metrics": {"population": 1.0},
            "artifacts": {"a": "file:///x"},
            "error_kind": "simulation",
        }
        data = json.dumps(_bent(chance, event)).encode()
    return Hostile("events", subject, _wrapped(chance, data, f"{subject}.v1"), _headers(chance))


def _objects(chance: random.Random) -> Hostile:
    name = chance.choice(["fuzz-object", "é", ""])
    info: dict[str, Any] = {
        "nuid": "n1",
        "size": 3,
        "chunks": 1,
        "digest": "SHA-256=x",
        "bucket": BUCKET,
        "name": name,
        "deleted": False,
        "options": {"max_chunk_size": 131072},
    }
    for key in chance.sample(sorted(info), chance.randrange(4)):
        info[key] = chance.choice([_value(chance), 2**53, ">", "*", {"link": {"bucket": "B"}}])
    data = json.dumps(info).encode()
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    if chance.random() < 0.3:
        return Hostile(
            "objects", f"$O.{BUCKET}.C.n1", b"abc", {"Nats-Sequence": chance.choice(["lots", "-1", "0", "9" * 300])}
        )
    return Hostile("objects", subject, _mutated(chance, data) if chance.random() < 0.4 else data)


def _requests(chance: random.Random) -> Hostile:
    request = {
        "experiment_id": f"fuzz-{chance.randrange(1000)}",
        "limit": 5,
        "after": 0,
        "plan": "x",
        "simulation_id": "y",
    }
    data = json.dumps(_bent(chance, request)).encode()
    if chance.random() < 0.3:
        data = _text(chance)
    reply = f"_INBOX.fuzz.{chance.randrange(10**9)}"
    return Hostile(
        "requests",
        f"ems.api.{chance.choice(VERBS)}",
        _mutated(chance, data) if chance.random() < 0.4 else data,
        reply=reply,
    )


def _replies(chance: random.Random) -> Hostile:
    subject = chance.choice([f"ems.api.{chance.choice(VERBS)}", "$SRV.PING", "$SRV.INFO.ems", "$SRV.STATS.ems"])
    reply = chance.choice(TARGETS).encode("utf-8", "replace").replace(b"\t", b".")
    # By hand: client libraries refuse some of these.
    return Hostile(
        "replies", subject, reply=reply.decode(), raw=b"PUB %s %s 2\r\n{}\r\n" % (subject.encode(), reply[:4000])
    )


def _control_lines(chance: random.Random) -> Hostile:
    subject = chance.choice([b"sim.run_started.", b"ems.experiment.submit."]) + chance.choice(
        [b"\xff", b"\xed\xa0\x80", b"a\x0bb", b"\x0c", b"\xc2\x85", b"a" * 900]
    )
    block = b"NATS/1.0" + chance.choice(
        [
            b"",
            b"\r\n",
            b" 404 \xff\r\n\r\n",
            b" 100 Idle\r\n\r\n",
            b"\r\n\xff: \xff\r\n\r\n",
            b"\r\nStatus: 409\r\n\r\n",
        ]
    )
    if chance.random() < 0.5:
        return Hostile("control lines", "", raw=b"PUB %s 2\r\n{}\r\n" % subject)
    return Hostile("control lines", "", raw=b"HPUB %s %d %d\r\n%s{}\r\n" % (subject, len(block), len(block) + 2, block))


_WAYS: tuple[Callable[[random.Random], Hostile], ...] = (
    _plans,
    _plans,
    _plans,
    _events,
    _events,
    _objects,
    _requests,
    _replies,
    _control_lines,
)
