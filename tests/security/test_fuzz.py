"""Hostile messages on every way in leave the worker as it was."""

import asyncio
from pathlib import Path

import pytest

from tests.security import fuzz


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_hostile_messages_cost_nothing(tmp_path: Path, seed: int) -> None:
    """The same process, ready, within its memory, every stream as it was; and an ordinary plan completes."""
    figures = asyncio.run(fuzz.fuzz(tmp_path, seconds=120, messages=10_000, seed=seed))
    assert figures.wrong == []
    assert set(figures.sent) == {"plans", "events", "objects", "requests", "replies", "control lines"}
