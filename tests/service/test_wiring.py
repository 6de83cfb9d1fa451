"""The connections between the services: a scenario fails without any one of the callbacks."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from ems_worker.daemon import services
from tests.support import wiring

Scenario = Callable[[Path], Awaitable[None]]
CUTS = wiring.cuts()


@pytest.mark.parametrize("scenario", wiring.SCENARIOS, ids=lambda scenario: scenario.__name__)
async def test_the_services_work_together(tmp_path: Path, scenario: Scenario) -> None:
    """Each scenario holds if every callback is connected."""
    await scenario(tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("cut", CUTS)
async def test_a_missing_callback_is_detected(tmp_path: Path, cut: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one scenario fails without it."""
    monkeypatch.setattr(services, "build", CUTS[cut])
    with pytest.raises(Exception):  # noqa: B017, PT011  scenarios fail with different errors
        await wiring.every_scenario(tmp_path)
