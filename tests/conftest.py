"""What tests of several kinds share."""

from collections.abc import Iterator

import pytest
from testcontainers.core.network import Network

from tests.support import containers


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network for containers, published on loopback only. Without an engine the test is skipped, in CI it fails."""
    containers.require_engine()
    with containers.loopback_network() as made:
        yield made
