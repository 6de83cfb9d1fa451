"""The durations of earlier runs, from which the duration of a plan is estimated."""

from pathlib import Path

from ems_worker.adapters.manifest import Manifest
from ems_worker.core.lifecycle.estimate import CompletedRun
from tests.support import manifests


async def test_the_newest_experiments_come_first(tmp_path: Path) -> None:
    """Only completed runs count, and those with the same base configuration are marked."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        own = manifests.spec("own", points=1, base=b'{"food": 1}')
        await manifests.complete_all(manifest, await manifests.running(manifest, own))
        other = manifests.spec("other", points=1, base=b'{"food": 2}')
        await manifests.complete_all(manifest, await manifests.running(manifest, other, seq=2))
        await manifests.running(manifest, manifests.spec("open", base=b'{"food": 1}'), seq=3)
        found = await manifest.durations(b'{"food": 1}')
    assert found == [CompletedRun(False, "fish-1", 2.0)] * 2 + [CompletedRun(True, "fish-1", 2.0)] * 2


async def test_a_large_manifest_is_sampled(tmp_path: Path) -> None:
    """Of each experiment only the last hundred ends are read."""
    async with Manifest.open(tmp_path / "manifest.db") as manifest:
        large = manifests.spec("large", points=300, replicates=1)
        await manifests.complete_all(manifest, await manifests.running(manifest, large))
        assert len(await manifest.durations(large.base)) == 100
