"""Points that were read are kept for a while: a run needs its point when it starts and when it ends."""

import random
from collections.abc import AsyncIterator
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker.adapters.manifest import Manifest, due, rows
from ems_worker.core.records import Experiment, PointRecord
from tests.support import manifests

POINTS = 10


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


async def expanded(manifest: Manifest, experiment_id: str, seq: int) -> tuple[Experiment, list[PointRecord]]:
    """An experiment with points of its own, one of which has a long value."""
    record = await manifests.accepted(manifest, manifests.spec(experiment_id, points=POINTS, replicates=1), seq)
    genomes = ["g" * (9000 if number == 3 else 1) for number in range(POINTS)]
    points = [
        PointRecord(number, {"of": experiment_id, "food": 10**25 + number, "genome": genome}, labels={"n": str(number)})
        for number, genome in enumerate(genomes)
    ]
    _, runs = manifests.jobs_of(range(POINTS), 1)
    await manifest.expand(record.key, points, runs, POINTS)
    return record, points


@pytest.mark.parametrize("kept", [0, 4, 2000])
async def test_a_kept_point_is_as_it_was_recorded(manifest: Manifest, kept: int) -> None:
    """Whichever points of which experiment were read before it, and however few are kept."""
    experiments = [await expanded(manifest, name, seq) for seq, name in enumerate(("reef", "lake"), start=1)]
    chance = random.Random(kept)
    with patch.object(due, "_KEPT_POINTS", kept):
        for _ in range(200):
            record, points = chance.choice(experiments)
            numbers = [chance.randrange(POINTS + 2) for _ in range(chance.randrange(6))]
            found = await manifest.points_by_number(record.key, numbers)
            assert found == {number: points[number] for number in numbers if number < POINTS}


async def test_a_point_is_read_once(manifest: Manifest) -> None:
    """Reading it again for another run, or for the end of its run, takes no query."""
    record, points = await expanded(manifest, "reef", 1)
    with patch.object(rows, "point", wraps=rows.point) as read:
        due = await manifest.due(record.key, manifests.NOW_MS, 2)
        assert [point for _, point in due] == points[:2]
        assert await manifest.points_by_number(record.key, [1, 0]) == {0: points[0], 1: points[1]}
        assert [call.args[0].point for call in read.call_args_list] == [0, 1]
        await manifest.points_by_number(record.key, [1, 2])
        assert [call.args[0].point for call in read.call_args_list] == [0, 1, 2]


async def test_a_long_point_is_not_kept(manifest: Manifest) -> None:
    """Two thousand of them would take gigabytes."""
    record, points = await expanded(manifest, "reef", 1)
    with patch.object(rows, "point", wraps=rows.point) as read:
        for _ in range(2):
            assert await manifest.points_by_number(record.key, [3, 4]) == {3: points[3], 4: points[4]}
        assert sorted(call.args[0].point for call in read.call_args_list) == [3, 3, 4]
