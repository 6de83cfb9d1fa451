"""A deployment that the tests share."""

from collections.abc import Iterator

import pytest

from tests.support import commands


@pytest.fixture(scope="session")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[commands.Deployment]:
    """Runs of experiments whose ids begin with `fails` fail. Runs of those that begin with `slow-` never end."""
    flags = ["--fail", "fails*:simulation", "--hold", "slow-*"]
    shared = commands.Deployment(tmp_path_factory.mktemp("deployment"), orchestrator=flags)
    try:
        shared.start()
        yield shared
    finally:
        shared.stop()
