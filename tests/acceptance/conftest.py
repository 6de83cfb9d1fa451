"""One deployment for all tests that need one."""

from collections.abc import Iterator

import pytest

from tests.support import commands


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[commands.Deployment]:
    """Runs of experiments whose id begins with `fails` fail; runs of `slow` ones outlast any test."""
    flags = ["--fail", "fails*:simulation", "--hold", "slow-*"]
    started = commands.Deployment(tmp_path_factory.mktemp("deployment"), orchestrator=flags)
    try:
        started.start()
        yield started
    finally:
        started.stop()
