"""The manifest is copied at an interval, each copy is whole, and the last seven are kept."""

import os
from pathlib import Path
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.adapters.manifest import copies
from ems_worker.daemon.backups import Backups
from tests.support.desk import Desk, plan


async def test_a_copy_is_whole_and_private(tmp_path: Path) -> None:
    """It has what the manifest has, and only its owner may read it."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan(points=3))
        taken = await Backups(desk.manifest, tmp_path / "backups", 60.0).take()
        assert taken is not None
        assert await copies.inspect(taken) == copies.Contents(experiments=1, runs=3, ended_runs=0)
        assert (taken.stat().st_mode & 0o077, taken.parent.stat().st_mode & 0o077) == (0, 0)


async def test_the_oldest_copies_are_deleted(tmp_path: Path) -> None:
    """Other files in the directory stay."""
    directory = tmp_path / "backups"
    directory.mkdir(mode=0o700)
    for day in range(10, 20):
        (directory / f"manifest-202001{day}T000000Z.db").touch()
    (directory / "mine.db").touch()
    async with Desk.open(tmp_path) as desk:
        taken = await Backups(desk.manifest, directory, 60.0).take()
    assert taken is not None
    left = sorted(os.listdir(directory))
    assert left == [f"manifest-202001{day}T000000Z.db" for day in range(14, 20)] + [taken.name, "mine.db"]


async def test_a_copy_is_due_when_the_last_one_is_old(tmp_path: Path) -> None:
    """Or when there is none; also if the clock was set back behind it."""
    directory = tmp_path / "backups"
    directory.mkdir(mode=0o700)
    async with Desk.open(tmp_path) as desk:
        each = Backups(desk.manifest, directory, 3600.0)
        assert each._is_due(1000.0)
        last = directory / "manifest-20200101T000000Z.db"
        last.touch()
        os.utime(last, (10_000, 10_000))
        assert [each._is_due(now) for now in (10_000, 13_599, 13_600, 9_999)] == [False, False, True, True]


async def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The worker goes on, and tries again."""
    async with Desk.open(tmp_path) as desk:
        (tmp_path / "file").touch()
        assert await Backups(desk.manifest, tmp_path / "file", 60.0).take() is None
        damaged = errors.ManifestUnusable("damaged")
        with patch("ems_worker.adapters.manifest.copies.inspect", side_effect=damaged):
            assert await Backups(desk.manifest, tmp_path / "backups", 60.0).take() is None
        assert os.listdir(tmp_path / "backups") == []


@pytest.mark.parametrize("seconds", [0, 1])
async def test_retention_keeps_what_it_can_not_export(tmp_path: Path, seconds: int) -> None:
    """An experiment without a manifest file stays, and goes once the file can be written."""
    exports = tmp_path / "exports"
    async with Desk.open(tmp_path, retention="1d", manifest_export=False, export_dir=exports) as desk:
        names = await desk.launch(await desk.begin(plan(points=1)))
        await desk.complete(names, [1.0])
        await desk.report("reef")
        desk.clock.seconds += 24 * 3600 + seconds
        if not seconds:
            # Exactly as old as the retention is not older.
            assert await desk.services.remover.expire() == 0
            return
        exports.write_text("in the way")
        assert await desk.services.remover.expire() == 0
        exports.unlink()
        assert await desk.services.remover.expire() == 1
        assert desk.files == ["reef"]


async def test_an_older_file_is_no_export_before_a_removal(tmp_path: Path) -> None:
    """It may lack the last change, or be of another experiment: it is written again."""
    exports = tmp_path / "exports"
    async with Desk.open(tmp_path, retention="1d", manifest_export=False, export_dir=exports) as desk:
        await desk.complete(await desk.launch(await desk.begin(plan(points=1))), [1.0])
        await desk.report("reef")
        exports.mkdir()
        (exports / "reef.manifest.jsonl").write_text("old\n")
        desk.clock.seconds += 24 * 3600 + 1
        assert await desk.services.remover.expire() == 1
        assert b'"experiment_id":"reef"' in (exports / "reef.manifest.jsonl").read_bytes()
