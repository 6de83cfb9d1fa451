"""Every attack that once succeeded against this worker fails now."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tests.security import attack


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("carry_out", attack.ATTACKS, ids=lambda carry_out: carry_out.__name__)
def test_the_attack_fails(carry_out: Callable[[Path], Coroutine[Any, Any, str]], tmp_path: Path) -> None:
    """Its assertions about the effect on its own servers and worker all hold."""
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o711)  # so that only the platform's own permissions keep another user out
    assert asyncio.run(carry_out(tmp_path / "attack"))
