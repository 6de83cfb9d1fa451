"""Every attack that this worker once fell to fails now."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.security import attack


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("carry_out", attack.ATTACKS, ids=lambda one: one.__name__)
def test_the_attack_fails(carry_out: Callable[[Path], Coroutine[Any, Any, str]], tmp_path: Path) -> None:
    """As its own words say; on servers and a worker that nobody else has."""
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o711)  # another user shall fail at the platform's own doors
    assert asyncio.run(carry_out(tmp_path / "attack"))
