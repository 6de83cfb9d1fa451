"""Whatever comes as a plan ends in a decision, a dead letter, or is asked for later; no other exception, ever."""

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
    """Has one object, and remembers what was asked for later."""

    postponed: list[int] = field(default_factory=list)

    async def plan_object(self, name: str, most_bytes: int) -> bytes:
        if name == "plan":
            return PLAN
        if name == "large":
            raise errors.RequestRefused(f"the object has more than {most_bytes} bytes")
        raise errors.NotFound(f"there is no object {name}")

    async def later(self, messages: Sequence[Message], delay_seconds: float) -> None:
        assert delay_seconds > 0
        self.postponed += [message.seq for message in messages]


class Intake:
    """A worker's intake that takes one message after another."""

    def __init__(self, runner: asyncio.Runner, desk: Desk, broker: Broker) -> None:
        self._runner = runner
        self._desk = desk
        self._broker = broker

    def take(self, data: bytes, **changes: Any) -> str:
        """What became of a message: its decision, `dead` or `later`."""
        message = self._desk.message("ems.experiment.submit", data, **changes)
        self._runner.run(self._desk.intake.take(message))
        found = [one["decision"] for one in self._broker.of("decision") if one["submission"]["seq"] == message.seq]
        found += ["dead" for _, seq, _ in self._broker.dead if seq == message.seq]
        found += ["later" for seq in self._broker.postponed if seq == message.seq]
        [outcome] = found
        assert (message.seq in self._broker.acked) == (outcome != "later")
        self._broker.published.clear()
        return str(outcome)


@pytest.fixture
def intake() -> Iterator[Intake]:
    """With a manifest of its own."""
    with tempfile.TemporaryDirectory() as directory, asyncio.Runner() as runner:
        broker = Broker()
        opened = Desk.open(Path(directory), broker=broker)
        desk = runner.run(opened.__aenter__())
        yield Intake(runner, desk, broker)
        runner.run(opened.__aexit__(None, None, None))


def _enveloped(payload: bytes, key: str = plan_codec.TYPE_KEY, **more: Any) -> bytes:
    return GenericEventRequest(event_type_key=key, event_payload=payload, **more).SerializeToString()


WORDS = st.text(st.characters(codec="utf-8"), max_size=9)
ENVELOPES = st.builds(
    _enveloped,
    st.sampled_from([PLAN, b"", gzip.compress(PLAN), _enveloped(PLAN)]) | st.binary(max_size=50),
    st.sampled_from([plan_codec.TYPE_KEY, "", "sim.run_started.v1"]) | WORDS,
    event_id=WORDS,
    timestamp_ns=st.integers(-(2**63), 2**63 - 1),
    payload_content_type=WORDS,
)


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Some bytes of it replaced, put in, or missing."""
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
def test_any_envelope_is_decided_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """Around a plan or something else, whole or damaged."""
    assert intake.take(data) in {"accepted", "duplicate", "rejected", "dead"}


@FUZZ
@given(mutated(st.sampled_from([gzip.compress(PLAN), gzip.compress(_enveloped(PLAN)), gzip.compress(b"") * 3])))
def test_any_gzip_is_decided_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """Of one member or some, whole or damaged."""
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
def test_any_plan_is_decided_or_a_dead_letter(intake: Intake, data: bytes) -> None:
    """What looks like one, in JSON."""
    assert intake.take(data) in {"accepted", "duplicate", "rejected", "dead"}


DIGESTS = [
    f"SHA-256={base64.urlsafe_b64encode(hashlib.sha256(PLAN).digest()).decode()}",
    hashlib.sha256(PLAN).hexdigest(),
    "SHA-256=",
    "sha-256=AAAA",
    "00" * 32,
]
# What a header of NATS can say: text, in whatever characters its bytes come to.
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
def test_any_headers_are_decided_or_a_dead_letter(
    intake: Intake, headers: Mapping[str, str], delivered: int, data: bytes
) -> None:
    """Or the plan's object may still come."""
    outcome = intake.take(data, headers=headers, delivered=delivered)
    assert outcome in {"accepted", "duplicate", "rejected", "dead", "later"}
    if outcome == "later":
        assert contents.OBJECT in headers
        assert delivered < contents.OBJECT_TRIES
