"""What tests of the services share."""

import pytest

from ems_worker.service.steering import executor, extend


@pytest.fixture(autouse=True)
def _at_any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reply waits for the examination of a small plan, however busy the machine is, and changes don't rest.

    While they rest, they would be looked at once more although nothing woke them.
    """
    monkeypatch.setattr(extend, "_EXAMINATION_SECONDS", 60.0)
    monkeypatch.setattr(executor, "_PAUSE_SECONDS", 0.0)
