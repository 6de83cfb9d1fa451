"""Random stories of verbs, kills, restarts and restores: in the end nothing is lost, twice or wrong.

More of them: `python -m tests.support.stories --seed 1 --stories 200`.
"""

from pathlib import Path

import pytest

from tests.support import stories


@pytest.mark.long
@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", [1, 5, 7])
async def test_a_random_story_ends_well(tmp_path: Path, seed: int) -> None:
    """Each change is applied once and closed, and every job has one end, whatever was killed meanwhile."""
    await stories.play(seed, tmp_path)
