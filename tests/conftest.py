"""What tests of several kinds share."""

import signal
from collections import Counter
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
from testcontainers.core.network import Network

from tests.support import containers

# Started in the background of a script, we would hand down that SIGINT is ignored to every program that tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine makes single examples slow, which says nothing about the code. `make test` tries few examples, always
# the same; `make test-long` runs every property again with `--hypothesis-profile long`: many examples, drawn anew.
_ANY_SPEED: dict[str, Any] = {"deadline": None, "suppress_health_check": [hypothesis.HealthCheck.too_slow]}
hypothesis.settings.register_profile("quick", max_examples=20, derandomize=True, print_blob=True, **_ANY_SPEED)
hypothesis.settings.register_profile("long", max_examples=100, print_blob=True, **_ANY_SPEED)
hypothesis.settings.load_profile("quick")


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """A network for containers, published on loopback only. Without an engine the test is skipped, in CI it fails."""
    containers.require_engine()
    with containers.loopback_network() as made:
        yield made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says why tests were skipped, a line for each reason: nothing is left out in silence."""
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in reasons.items():
        terminalreporter.write_line(f"{count} skipped: {reason.removeprefix('Skipped: ')}")
