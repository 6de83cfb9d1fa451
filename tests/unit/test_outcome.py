"""What a refusal means: about the size of the request only where it names exactly that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import outcome

SIZE, LIMIT = 130, 129


@pytest.mark.parametrize(
    "words",
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
def test_a_refusal_that_names_the_size_of_the_request_is_about_it(words: str) -> None:
    """In the words of gRPC's servers, whatever is around them."""
    assert outcome.message_limit("RESOURCE_EXHAUSTED", words, SIZE) == LIMIT
    assert outcome.message_limit("OUT_OF_RANGE", f"status: {words}", SIZE) == LIMIT
    assert outcome.message_limit("UNAVAILABLE", words, SIZE) is None
    assert outcome.message_limit("RESOURCE_EXHAUSTED", words, SIZE + 1) is None


@pytest.mark.parametrize(
    "words",
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
def test_other_words_decide_nothing(words: str) -> None:
    """Whatever numbers happen to be in them, and however many of them."""
    assert outcome.message_limit("RESOURCE_EXHAUSTED", words, SIZE) is None


@given(st.text(max_size=60), st.integers(0, 10**13), st.integers(0, 10**13), st.integers(0, 10**13))
def test_a_limit_is_always_below_the_size(noise: str, named: int, limit: int, size: int) -> None:
    """And positive, whatever is said."""
    words = f"{noise}larger than max ({named} vs. {limit}){noise}"
    found = outcome.message_limit("RESOURCE_EXHAUSTED", words, size)
    assert found is None or 0 < found < size
    assert found is None or named == size
