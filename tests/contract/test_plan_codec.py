"""Plans are unwrapped whatever their wrapping; damaged wrappings and bombs are refused at a low cost."""

import gzip
import tracemalloc
import zlib
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import plan_codec
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from tests.support import steps

MOST = 1_000_000
YAML = b"experiment_name: reef\nruns: [{}]\n"
JSON = b'{"experiment_name": "reef"}'


def wrapped(payload: bytes, key: str = "ems.experiment.submit.v1") -> bytes:
    """A GenericEventRequest as other parts of the platform make it."""
    return GenericEventRequest(
        event_id="7", event_type_key=key, event_payload=payload, timestamp_ns=1, source_worker_id="evolution"
    ).SerializeToString()


def _zeros(megabytes: int) -> Iterator[bytes]:
    stream = zlib.compressobj(9, zlib.DEFLATED, 31)
    for _ in range(megabytes):
        yield stream.compress(bytes(2**20))
    yield stream.flush()


def problem(data: bytes, most: int = MOST) -> errors.Problem:
    with pytest.raises(errors.PlanRejected) as caught:
        plan_codec.unpack(data, most)
    return caught.value.problems[0]


@pytest.mark.parametrize("text", [YAML, JSON, b"", b"\n", b"\xff"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: text,
        gzip.compress,
        wrapped,
        lambda text: gzip.compress(wrapped(text)),
        lambda text: gzip.compress(text[:5]) + gzip.compress(text[5:]) + b"\0" * 512,
    ],
    ids=["plain", "gzip", "protobuf", "gzip around protobuf", "two gzip members and padding"],
)
def test_a_plan_is_unwrapped(wrap, text: bytes) -> None:  # type: ignore[no-untyped-def]  # lambdas
    """A message may be compressed, then wrapped into the platform's envelope; otherwise it is the plan itself."""
    assert plan_codec.unpack(wrap(text), MOST) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cc", "Cs"], include_characters="\n\t")))
def test_text_is_never_taken_for_an_envelope(text: str) -> None:
    """A YAML or JSON plan has no control characters, and an envelope begins with one."""
    assert plan_codec.unpack(text.encode(), MOST) == text.encode()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (wrapped(JSON, "sim.run_completed.v1"), "'sim.run_completed.v1'; that of plans is ems.experiment.submit.v1"),
        (gzip.compress(gzip.compress(JSON)), "compressed twice"),
        (gzip.compress(JSON)[:-3], "the end is missing"),
        (gzip.compress(JSON)[:-8] + b"\0" * 8, "incorrect data check"),
        (gzip.compress(JSON) + b"rest", "incorrect header check"),
        (gzip.compress(b"a") * 1001, "more than 1,000 members"),
        (b"\x1f\x8b", "the end is missing"),
    ],
    # The output of gzip contains the time, so it can't name the cases.
    ids=[
        "another event",
        "compressed twice",
        "truncated",
        "wrong checksum",
        "trailing data",
        "many members",
        "magic only",
    ],
)
def test_a_damaged_wrapping_is_unreadable(data: bytes, reason: str) -> None:
    """The error, which goes to the dead letters, gives the reason."""
    with pytest.raises(errors.Unreadable, match=reason):
        plan_codec.unpack(data, MOST)


def test_the_limit_applies_to_the_decompressed_size() -> None:
    """A plan of exactly the limit is accepted; with one more byte it is rejected, and the problem names the setting."""
    assert len(plan_codec.unpack(gzip.compress(b"a" * MOST), MOST)) == MOST
    for data in (gzip.compress(b"a" * (MOST + 1)), b"a" * (MOST + 1), gzip.compress(b"a" * MOST) + gzip.compress(b"a")):
        rejected = problem(data)
        assert rejected.code == "plan_too_large"
        assert "EMS_MAX_PLAN_BYTES" in rejected.message


def test_a_bomb_takes_few_steps_and_little_memory() -> None:
    """One member, many members and half a million empty members are refused as soon as they exceed a limit."""
    for bomb in (b"".join(_zeros(200)), gzip.compress(b"\0" * 2**20) * 10_000, gzip.compress(b"") * 500_000):
        assert steps.calls(_refuse, bomb) < 100_000
        tracemalloc.start()
        _refuse(bomb)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 50e6


def _refuse(bomb: bytes) -> None:
    with pytest.raises((errors.PlanRejected, errors.Unreadable)):
        plan_codec.unpack(bomb, 16 * 2**20)
