"""The wiring of the services: each callback has something that depends on it, and is noticed when it is missing."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ems_worker.daemon import services
from tests.support import wiring

Scenario = Callable[[Path], Awaitable[None]]
CUTS = wiring.cuts()


@pytest.mark.parametrize("scenario", wiring.SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_services_work_together(tmp_path: Path, scenario: Scenario) -> None:
    """Each scenario holds with every callback in place."""
    await scenario(tmp_path)


@pytest.mark.parametrize("cut", CUTS)
async def test_a_callback_that_is_cut_is_noticed(tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some scenario fails without it."""
    monkeypatch.setattr(services, "build", CUTS[cut])
    with pytest.raises(Exception):  # noqa: B017, PT011  whatever a scenario fails with
        await wiring.every_scenario(tmp_path)
