"""The manifest file of an ended experiment, and reading files inside a root directory."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.adapters import files
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.records import JobRow, PointRecord


async def rows(count: int, fail: bool = False) -> AsyncIterator[JobRow]:
    for number in range(count):
        run = Run(number, 0, 1, seed=7, state=RunState.COMPLETED, metrics={"population": number}, finished_ms=1)
        yield JobRow(PointRecord(number, {"food": number, "genome": "x" * 5000}), run)
    if fail:
        raise errors.ManifestUnusable("closed")


async def test_the_file_has_a_line_for_each_job(tmp_path: Path) -> None:
    """Lines are flat, in the order of the jobs, with whole parameters; only the owner can read the file."""
    path = await files.write_manifest(tmp_path / "new", "reef", rows(2500))
    assert path == tmp_path / "new" / "reef.manifest.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["param.food"] for line in lines] == list(range(2500))
    assert lines[0]["param.genome"] == "x" * 5000
    assert lines[3]["metric.population"] == 3
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == [path.name]


async def test_the_file_is_replaced_atomically(tmp_path: Path) -> None:
    """The old file is kept until the new file is complete, and after a failure."""
    path = await files.write_manifest(tmp_path, "reef", rows(3))
    with pytest.raises(errors.ManifestUnusable):
        await files.write_manifest(tmp_path, "reef", rows(1, fail=True))
    assert len(path.read_text().splitlines()) == 3
    await files.write_manifest(tmp_path, "reef", rows(1))
    assert len(path.read_text().splitlines()) == 1


async def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """The error has the name of the file and the system's reason."""
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.FileUnwritable, match=r"reef\.manifest\.jsonl can't be written: "):
        await files.write_manifest(tmp_path / "file", "reef", rows(1))


@pytest.mark.parametrize("swapped", ["file", "directory"])
def test_a_path_replaced_with_a_link_meanwhile_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, swapped: str
) -> None:
    """A process that changes the path between its check and the opening of the file gains no access to another file."""
    root, outside = tmp_path / "plans", tmp_path / "outside"
    for directory, content in ((root / "sub", "mine"), (outside, "secret")):
        directory.mkdir(parents=True)
        (directory / "base.yaml").write_text(content)
    original_open = os.open

    def swap(path: Path, flags: int) -> int:
        if swapped == "file":
            (root / "sub" / "base.yaml").unlink()
            (root / "sub" / "base.yaml").symlink_to(outside / "base.yaml")
        else:
            (root / "sub").rename(root / "away")
            (root / "sub").symlink_to(outside)
        return original_open(path, flags)

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(errors.FileUnreadable):
        files.read_inside(root / "sub" / "base.yaml", [root])
