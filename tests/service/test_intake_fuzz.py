"""Any plan message, even a malformed one, leads to a decision, a dead letter or a redelivery, never to an error."""

import asyncio
import base64
import gzip
import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import plan_codec
from ems_worker.core.wire import Message
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.service.intake import contents
from tests.support import desk as desks
from tests.support.desk import Desk

PLAN = json.dumps(desks.plan()).encode()
FUZZ = settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@dataclass
class Broker(desks.Broker):
    """A broker with a plan and a large object in its store; it records which messages are to be redelivered later."""

    postponed: list[int] = field(default_factory=list)

    async def plan_object(self, name: str, max_bytes: int) -> bytes:
        if name == "plan":
            return PLAN
        if name == "large":
            raise errors.RequestRefused(f"the object has more than {max_bytes} bytes")
        raise errors.NotFound(f"there is no object {name}")

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        assert delay_seconds > 0
        self.postponed += [message.seq for message in messages]


class Intake:
    """The intake of a worker, called synchronously."""

    def __init__(self, runner: asyncio.Runner, desk: Desk, broker: Broker) -> None:
        self._runner = runner
        self._desk = desk
        self._broker = broker

    def take(self, data: bytes, **changes: Any) -> str:
        """Handles a message; returns its decision, `dead` or `later`."""
        message = self._desk.message("ems.experiment.submit", data, **changes)
        self._runner.run(self._desk.intake.take(message))
        decisions = [
            document for document in self._broker.of("decision") if document["submission"]["seq"] == message.seq
        ]
        outcomes = [decision["decision"] for decision in decisions]
        outcomes += ["dead" for _, seq, _ in self._broker.dead if seq == message.seq]
        outcomes += ["later" for seq in self._broker.postponed if seq == message.seq]
        [outcome] = outcomes
        assert (message.seq in self._broker.acked) == (outcome != "later")
        self._broker.published.clear()
        return str(outcome)


@pytest.fixture
def intake() -> Iterator[Intake]:
    """An intake with an empty manifest."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        broker = Broker()
        opened = Desk.open(Path(directory), broker=broker)
        desk = runner.run(opened.__aenter__())
        yield Intake(runner, desk, broker)
        runner.run(opened.__aexit__(None, None, None))


def _enveloped(payload: bytes, key: str = plan_codec.TYPE_KEY, **more: Any) -> bytes:
    return GenericEventRequest(event_type_key=key, event_payload=payload, **more).SerializeToString()


TOKENS = st.text(st.characters(codec="utf-8"), max_size=9)
ENVELOPES = st.builds(
    _enveloped,
    st.sampled_from([PLAN, b"", gzip.compress(PLAN), _enveloped(PLAN)]) | st.binary(max_size=50),
    st.sampled_from([plan_codec.TYPE_KEY, "", "sim.run_started.v1"]) | TOKENS,
    event_id=TOKENS,
    timestamp_ns=st.integers(-(2**63), 2**63 - 1),
    payload_content_type=TOKENS,
)


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """The data with up to four changes: bytes replaced, inserted or removed."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(data)


@FUZZ
@given(mutated(ENVELOPES))
@example(_enveloped(PLAN))
@example(_enveloped(b""))
@example(b"\x12\xff\xff\xff\xff\x0f")
def test_any_envelope_leads_to_a_decision_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """The envelopes contain a plan or other bytes, and some are damaged."""
    assert intake.take(data) in {"accepted", "duplicate", "rejected", "dead"}


@FUZZ
@given(mutated(st.sampled_from([gzip.compress(PLAN), gzip.compress(_enveloped(PLAN)), gzip.compress(b"") * 3])))
def test_any_compressed_data_leads_to_a_decision_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """The gzip data has one member or several, and some is damaged."""
    assert intake.take(data) in {"accepted", "duplicate", "rejected", "dead"}


@FUZZ
@given(
    mutated(st.just(PLAN))
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*json.loads(PLAN), "x"]), inner),
        max_leaves=20,
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_json_leads_to_a_decision_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """The documents are damaged plans, or arbitrary values with the keys of a plan."""
    assert intake.take(data) in {"accepted", "duplicate", "rejected", "dead"}


DIGESTS = [
    f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(PLAN).digest()).decode()}",
    hashlib.sha256(PLAN).hexdigest(),
    "SHA-256=",
    "sha-256=AAAA",
    "00" * 32,
]
# The value of a NATS header is arbitrary text.
TEXT = st.text(st.characters(), max_size=30)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Content-Type": TEXT | st.sampled_from(["application/json", "application/gzip", "text/yaml; charset=utf-16"]),
        "Nats-Msg-Id": TEXT,
        contents.OBJECT: TEXT | st.sampled_from(["plan", "large", "gone", ""]),
        contents.DIGEST: TEXT | st.sampled_from(DIGESTS),
        "traceparent": TEXT | st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        "Ems-Reply-To": TEXT | st.sampled_from(["_INBOX.a", "_INBOX.", "_INBOX.>", "ems.experiment.submit"]),
    },
)


@FUZZ
@given(HEADERS, st.integers(1, contents.OBJECT_TRIES + 1), st.sampled_from([PLAN, b"", b"\xff"]))
@example({contents.OBJECT: "plan", contents.DIGEST: DIGESTS[0]}, 1, b"")
@example({contents.OBJECT: "gone", contents.DIGEST: DIGESTS[1]}, 1, b"")
@example({contents.OBJECT: "gone", contents.DIGEST: DIGESTS[1]}, contents.OBJECT_TRIES, b"")
@example({contents.OBJECT: "plan", contents.DIGEST: "SHA-256=\u00e9"}, 1, b"")
@example({contents.OBJECT: "\ud800"}, 1, b"")
def test_any_headers_lead_to_a_decision_a_dead_letter_or_a_redelivery(
    intake: Intake, headers: Mapping[str, str], delivered: int, data: bytes
) -> None:
    """A message is redelivered later only while the plan's object may still arrive."""
    outcome = intake.take(data, headers=headers, delivered=delivered)
    assert outcome in {"accepted", "duplicate", "rejected", "dead", "later"}
    if outcome == "later":
        assert contents.OBJECT in headers
        assert delivered < contents.OBJECT_TRIES
