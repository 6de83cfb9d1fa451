"""Parts of hostile messages, drawn from a seed: plans, JSON values, mutated bytes, envelopes and headers."""

import gzip
import json
import random
from typing import Any

from ems_worker.pb.fes.common.events import generic_event_request_pb2 as envelope_pb2

# Subjects to which an attacker would like the worker to publish.
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

# Input that has caused problems in parsers of YAML, JSON and headers.
_FRAGMENTS = (
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


def plan(chance: random.Random) -> dict[str, Any]:
    """A valid plan."""
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


def value(chance: random.Random, depth: int = 0) -> Any:
    """Any JSON value, often an invalid one."""
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
        return [value(chance, depth + 1) for _ in range(chance.randrange(4))]
    return {chance.choice(["a", "simulation_id", "metrics", "", "x" * 300]): value(chance, depth + 1) for _ in range(3)}


def altered(chance: random.Random, document: dict[str, Any]) -> dict[str, Any]:
    """The document with some keys removed, added, or given another value."""
    result = dict(document)
    for _ in range(chance.randrange(3)):
        key = chance.choice([*document, "limits", "design", "runs", "seeds", "inject", "unknown"])
        if chance.random() < 0.2:
            result.pop(key, None)
        else:
            result[key] = value(chance)
    return result


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The bytes with some of them changed, deleted, repeated or inserted."""
    result = bytearray(data)
    for _ in range(chance.randrange(1, 5)):
        at = chance.randrange(len(result) + 1)
        match chance.randrange(4):
            case 0 if at < len(result):
                result[at] = chance.randrange(256)
            case 1:
                del result[at : at + chance.randrange(20)]
            case 2:
                result[at:at] = result[at : at + chance.randrange(200)] * chance.randrange(1, 20)
            case _:
                result[at:at] = chance.choice(_FRAGMENTS)
    return bytes(result[:400_000])


def plan_text(chance: random.Random) -> bytes:
    """The text of a plan, mostly invalid."""
    text = json.dumps(altered(chance, plan(chance))).encode()
    return text if chance.random() < 0.3 else mutated(chance, text)


def wrapped(chance: random.Random, data: bytes, key: str) -> bytes:
    """The bytes in the envelopes and compression that the protocol permits, sometimes damaged."""
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
        data = gzip.compress(data, mtime=0)  # the time would differ from run to run
    return mutated(chance, data) if chance.random() < 0.5 else data


def headers(chance: random.Random) -> dict[str, str]:
    """Up to three headers, mostly with invalid values."""
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
