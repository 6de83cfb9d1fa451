"""Hostile messages on every input leave the worker and its streams unchanged."""

import asyncio
import random
import time
from pathlib import Path

import pytest

from tests.security import fuzz, payloads


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_worker_survives_hostile_messages(tmp_path: Path, seed: int) -> None:
    """The process is the same, ready and within its memory limit, no stream has changed, and a plan completes."""
    figures = asyncio.run(fuzz.fuzz(tmp_path, seconds=120, messages=10_000, seed=seed))
    assert figures.problems == []
    assert set(figures.sent) == {"plans", "events", "objects", "requests", "replies", "control lines"}


def test_the_same_seed_gives_the_same_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure can be reproduced at any later time from its seed."""

    def drawn() -> list[payloads.Hostile]:
        chance = random.Random(7)
        return [payloads.draw(chance) for _ in range(1000)]

    before = drawn()
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert drawn() == before
