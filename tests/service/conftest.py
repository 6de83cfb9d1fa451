"""What tests of the services share."""

import pytest

from ems_worker.service.steering import extend


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the examination of a small plan may take longer than a reply waits for it."""
    monkeypatch.setattr(extend, "_EXAMINATION_SECONDS", 60.0)
