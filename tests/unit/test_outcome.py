"""What an answer to a start call means."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import outcome
from ems_worker.core.lifecycle.outcome import OUTCOMES, Outcome

SIZE, LIMIT = 130, 129


def test_a_status_code_that_is_not_in_the_table_means_unknown() -> None:
    """Each code in the table has a meaning of its own; a run whose answer is unknown is sent again."""
    assert outcome.outcome("OK") is outcome.outcome("ALREADY_EXISTS") is Outcome.SUBMITTED
    for code in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "CANCELLED"):
        assert outcome.outcome(code) is Outcome.UNKNOWN
    assert set(OUTCOMES.values()) == set(Outcome) - {Outcome.UNKNOWN, Outcome.LATE, Outcome.UNSENT}


@pytest.mark.parametrize(
    "message",
    [
        "Received message larger than max (130 vs. 129)",
        "SERVER: Received message larger than max (130 vs 129)",
        "grpc: received message larger than max (130 vs. 129)",
        "grpc: received message after decompression larger than max (130 vs. 129)",
        "gRPC message exceeds maximum size 129: 130",
        "Error, decoded message length too large: found 130 bytes, the limit is: 129 bytes",
        "larger than max (7 vs. 5), larger than max (130 vs. 129)",
    ],
)
def test_a_refusal_whose_message_has_the_size_of_the_request_is_about_it(message: str) -> None:
    """The message may have the form of any gRPC server, inside other text."""
    assert outcome.message_limit("RESOURCE_EXHAUSTED", message, SIZE) == LIMIT
    assert outcome.message_limit("OUT_OF_RANGE", f"status: {message}", SIZE) == LIMIT
    assert outcome.message_limit("UNAVAILABLE", message, SIZE) is None
    assert outcome.message_limit("RESOURCE_EXHAUSTED", message, SIZE + 1) is None


@pytest.mark.parametrize(
    "message",
    [
        "",
        "the run queue exceeds maximum size, try again later",
        "the run queue exceeds maximum size 129: 131 runs",
        "queue larger than max",
        "larger than max (130)",
        "larger than max (130 vs. 0)",
        "larger than max (130 vs. 130)",
        "larger than max (130 vs. 131)",
        "larger than max (129 vs. 128)",
        "larger than max (١٣٠ vs. ١٢٩)",
        "larger than max (130.0 vs. 129.0)",
        "larger than max (-130 vs. -129)",
        f"larger than max ({'1' * 5000} vs. 129)",
        f"larger than max (130 vs. {'1' * 100_000})",
        "exceeds maximum size 129: 1300",
        "exceeds maximum size 129: 130000000000000000",
        " " * 5000 + "larger than max (130 vs. 129)",
    ],
)
def test_a_refusal_with_any_other_message_is_not_about_the_size(message: str) -> None:
    """Other numbers in the message, or the same ones in another form, don't count."""
    assert outcome.message_limit("RESOURCE_EXHAUSTED", message, SIZE) is None


@given(st.text(max_size=60), st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13))
def test_a_limit_is_always_below_the_size(noise: str, named: int, limit: int, size: int) -> None:
    """It is positive, too, and found only if the message has exactly the size of the request."""
    message = f"{noise}larger than max ({named} vs. {limit}){noise}"
    recognized = outcome.message_limit("RESOURCE_EXHAUSTED", message, size)
    assert recognized is None or 0 < recognized < size
    assert recognized is None or named == size
