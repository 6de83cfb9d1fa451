"""Hostile messages for every input of the worker, drawn from a seed: the same seed gives the same messages."""

import base64
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.security import fragments

BUCKET = "EMS_PLAN_OBJECTS"
EVENTS = ("sim.run_started", "sim.run_completed", "sim.run_failed", "sim.run_metrics")
VERBS = ("validate", "list", "get", "jobs", "points", "results", "config", "resume", "retry", "nothing")


@dataclass(frozen=True, slots=True)
class Hostile:
    """A message, and the input that it attacks. `raw` is a control line, sent without a client library."""

    way: str
    subject: str
    data: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    reply: str = ""
    raw: bytes = b""


def draw(chance: random.Random) -> Hostile:
    """The next message."""
    return chance.choice(_WAYS)(chance)


def _plans(chance: random.Random) -> Hostile:
    subject = chance.choice(
        ["ems.experiment.submit", "ems.experiment.submit.fuzz", "ems.experiment.submit." + "n" * 200]
    )
    data = fragments.plan_text(chance)
    if chance.random() < 0.4:
        data = fragments.wrapped(chance, data, "ems.experiment.submit.v1")
    return Hostile("plans", subject, data, fragments.headers(chance))


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
        data = json.dumps(fragments.altered(chance, event)).encode()
    return Hostile("events", subject, fragments.wrapped(chance, data, f"{subject}.v1"), fragments.headers(chance))


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
        info[key] = chance.choice([fragments.value(chance), 2**53, ">", "*", {"link": {"bucket": "B"}}])
    data = json.dumps(info).encode()
    subject = f"$O.{BUCKET}.M.{base64.urlsafe_b64encode(name.encode()).decode()}"
    if chance.random() < 0.3:
        return Hostile(
            "objects", f"$O.{BUCKET}.C.n1", b"abc", {"Nats-Sequence": chance.choice(["lots", "-1", "0", "9" * 300])}
        )
    return Hostile("objects", subject, fragments.mutated(chance, data) if chance.random() < 0.4 else data)


def _requests(chance: random.Random) -> Hostile:
    request = {
        "experiment_id": f"fuzz-{chance.randrange(1000)}",
        "limit": 5,
        "after": 0,
        "plan": "x",
        "simulation_id": "y",
    }
    data = json.dumps(fragments.altered(chance, request)).encode()
    if chance.random() < 0.3:
        data = fragments.plan_text(chance)
    reply = f"_INBOX.fuzz.{chance.randrange(10**9)}"
    return Hostile(
        "requests",
        f"ems.api.{chance.choice(VERBS)}",
        fragments.mutated(chance, data) if chance.random() < 0.4 else data,
        reply=reply,
    )


def _replies(chance: random.Random) -> Hostile:
    subject = chance.choice([f"ems.api.{chance.choice(VERBS)}", "$SRV.PING", "$SRV.INFO.ems", "$SRV.STATS.ems"])
    reply = chance.choice(fragments.TARGETS).encode("utf-8", "replace").replace(b"\t", b".")
    # As raw bytes, since client libraries refuse some of these.
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
