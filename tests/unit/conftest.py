"""Settings of all unit tests."""

import sys
from collections.abc import Iterator

import hypothesis
import pytest

# A busy machine makes single examples slow, which says nothing about the code.
hypothesis.settings.register_profile("ems", deadline=None, print_blob=True)
hypothesis.settings.load_profile("ems")


@pytest.fixture
def untraced() -> Iterator[None]:
    """Measures what runs in a test as it is: without the tracing of coverage, which makes code several times slower."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(trace)
