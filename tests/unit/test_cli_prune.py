"""What is pruned has a manifest file of its last state first, in its directory."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker.cli import prune
from ems_worker.core.documents import results


class Worker:
    """Has experiments with these ids, each with one job."""

    def __init__(self, *experiment_ids: str) -> None:
        self._ids = experiment_ids

    async def experiments(self) -> AsyncIterator[dict[str, Any]]:
        for name in self._ids:
            yield {"experiment_id": name, "finished_at": "2026-01-01T00:00:00Z"}

    async def get(self, experiment_id: str) -> dict[str, Any]:
        return {"parameters": [], "metrics": []}

    async def jobs(self, experiment_id: str) -> AsyncIterator[dict[str, Any]]:
        yield {}


async def test_an_id_that_leads_elsewhere_is_left_out() -> None:
    """A worker that lies about it can't choose where a file is written."""
    worker: Any = Worker("../../up", "/etc/x", "", "reef", "a/b", "reef\n")
    assert [each["experiment_id"] async for each in prune._ended(worker, "2026-02-01")] == ["reef"]


async def test_an_older_manifest_file_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lacks what happened since."""
    (tmp_path / "reef.manifest.jsonl").write_text("old\n")
    worker: Any = Worker("reef")
    monkeypatch.setattr(results, "line", lambda _: {"new": 1})
    await prune._keep(worker, tmp_path, "reef")
    assert (tmp_path / "reef.manifest.jsonl").read_text() == '{"new":1}\n'
