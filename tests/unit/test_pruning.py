"""Directories of runs that ended long ago are deleted; those of open runs and of younger ones stay."""

import os
import shutil
from pathlib import Path

import pytest

from ems_worker.local.orchestrator import model, pruning
from ems_worker.local.orchestrator.store import Store

DAY_NS = 24 * 3600 * 10**9
NOW_NS = 1_800_000_000 * 10**9


async def ended(store: Store, name: str, at_ns: int) -> None:
    """A run that ended at this time, in the database of an orchestrator."""
    await store.admit([model.Order(name, b"", "sha", 1, "reef")])
    await store.begin(name, host="n17", slot="1")
    run = model.LocalRun(name, model.State.COMPLETED, "sha", "reef", False, at_ns - 5, at_ns, model.RunEnd(), "m1")
    await store.end(run, model.Event(name, "sim.run_completed", f"{name}:completed", b"{}"))


def wrote(data_dir: Path, name: str, changed_ns: int = NOW_NS) -> Path:
    """The directory of a run, with ten bytes of output."""
    directory = data_dir / "runs" / name
    (directory / "output").mkdir(parents=True)
    (directory / "output" / "series.csv").write_bytes(b"0123456789")
    for path in (directory / "output", directory):
        os.utime(path, ns=(changed_ns, changed_ns))
    return directory


async def test_only_old_directories_of_ended_runs_are_deleted(tmp_path: Path) -> None:
    """A run that the database has forgotten is as old as its files; what else is there stays."""
    store = Store(tmp_path / "orchestrator.db")
    await store.open()
    await ended(store, "old", NOW_NS - 31 * DAY_NS)
    await ended(store, "young", NOW_NS - 29 * DAY_NS)
    await store.admit([model.Order("open", b"", "sha", 1, "reef")])
    for name in ("old", "young", "open"):
        wrote(tmp_path, name, changed_ns=NOW_NS - 90 * DAY_NS)
    wrote(tmp_path, "forgotten-old", changed_ns=NOW_NS - 31 * DAY_NS)
    wrote(tmp_path, "forgotten-young")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "runs" / "link").symlink_to(outside)
    try:
        before_ns = NOW_NS - 30 * DAY_NS
        assert pruning.prune(tmp_path, before_ns, dry_run=True) == pruning.Pruned(2, 20)
        assert len(os.listdir(tmp_path / "runs")) == 6
        assert pruning.prune(tmp_path, before_ns) == pruning.Pruned(2, 20)
        assert sorted(os.listdir(tmp_path / "runs")) == ["forgotten-young", "link", "open", "young"]
        assert pruning.prune(tmp_path, before_ns) == pruning.Pruned()
        # Its id is still known: the run can't start again by mistake.
        assert (await store.admit([model.Order("old", b"", "sha", 1, "reef")])) == [model.Admission.ALREADY_EXISTS]
    finally:
        await store.close()


async def test_an_open_attempt_keeps_what_earlier_ones_wrote(tmp_path: Path) -> None:
    """It resumes from there. The attempts at other jobs, however similar their ids, are deleted."""
    store = Store(tmp_path / "orchestrator.db")
    await store.open()
    try:
        kept = ["x-p000000-r000-a1", "x-p000000-r000-a2"]
        deleted = ["x-p000000-r000-b1", "x-p000000-r001-a1", "x-p000000-r000-a", "y-p000000-r000-a1"]
        for name in (*kept, *deleted):
            await ended(store, name, NOW_NS - 31 * DAY_NS)
            wrote(tmp_path, name)
        await store.admit([model.Order("x-p000000-r000-a10", b"", "sha", 1, "reef")])
        await store.admit([model.Order("y-p000000-r000-a1-later", b"", "sha", 1, "reef")])
        assert pruning.prune(tmp_path, NOW_NS - 30 * DAY_NS) == pruning.Pruned(4, 40)
        assert sorted(os.listdir(tmp_path / "runs")) == kept
    finally:
        await store.close()


async def test_only_what_is_gone_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that can't be deleted isn't one that was; the files that went are."""
    store = Store(tmp_path / "orchestrator.db")
    await store.open()
    await store.close()
    directory = wrote(tmp_path, "stubborn", changed_ns=NOW_NS - 31 * DAY_NS)
    (directory / "stdout").write_bytes(b"123")
    os.utime(directory, ns=(NOW_NS - 31 * DAY_NS, NOW_NS - 31 * DAY_NS))

    def deletes_one_file(path: str, *, ignore_errors: bool) -> None:
        assert ignore_errors
        Path(path, "stdout").unlink()

    monkeypatch.setattr(shutil, "rmtree", deletes_one_file)
    assert pruning.prune(tmp_path, NOW_NS - 30 * DAY_NS) == pruning.Pruned(0, 3)
