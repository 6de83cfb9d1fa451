"""The manifest files of ended experiments: `EXPERIMENT_ID.manifest.jsonl`, a line for each job.

The lines are those of the published results, if this process published one for each job. Otherwise the file is made
from the manifest.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from ems_worker import errors
from ems_worker.adapters import files
from ems_worker.adapters.spool import Spool
from ems_worker.core.documents import documents, results
from ems_worker.core.documents.documents import Document
from ems_worker.core.records import JobRow
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()

# Of how many experiments lines are collected at once, and how many jobs each of them may have.
_MAX_SPOOLS: Final = 64
_MAX_JOBS: Final = 200_000
# Of files with lines; an earlier process may have left some.
_SUFFIX: Final = ".lines"


class Exports:
    """Writes manifest files into a directory."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        self._directory = directory
        self._manifest = manifest
        self._spools: dict[int, Spool] = {}
        with contextlib.suppress(OSError):
            for left in directory.glob(f".*{_SUFFIX}"):
                left.unlink()

    def published(self, live: Live, ended: Sequence[tuple[JobRow, Document]]) -> None:
        """Collects the lines of results that are published."""
        spool = self._spools.get(live.key) or self._begin(live)
        if spool is None:
            return
        replicates = live.record.spec.replicates
        whole = [document["params"] == row.point.params for row, document in ended]
        try:
            if not all(whole) or spool.places != live.record.spec.jobs:
                # A long value was shortened, or the experiment was extended.
                self._drop(live.key)
                return
            spool.add(
                (row.run.point * replicates + row.run.replicate, documents.encode(results.line(document)) + b"\n")
                for row, document in ended
            )
        except OSError:
            self._drop(live.key)

    async def write(self, live: Live) -> None:
        """Writes the file of an ended experiment; its end is reported in any case."""
        try:
            path = await self._assembled(live) or await files.write_manifest(
                self._directory, live.experiment_id, self._manifest.export(live.key)
            )
        except errors.FileUnwritable as error:
            # `ems export` can write it at any time.
            log.error("experiment.manifest_not_written", experiment_id=live.experiment_id, reason=str(error))
        else:
            log.info("experiment.manifest_written", experiment_id=live.experiment_id, path=str(path))

    async def keep(self, experiment_id: str, key: int) -> bool:
        """Writes the file of an experiment before it is removed; whether that was possible.

        A file that is there may be older than the last change, or not be of this experiment.
        """
        try:
            await files.write_manifest(self._directory, experiment_id, self._manifest.export(key))
        except errors.FileUnwritable as error:
            log.error("experiment.manifest_not_written", experiment_id=experiment_id, reason=str(error))
            return False
        return True

    async def _assembled(self, live: Live) -> Path | None:
        """The file, made from the lines; None if it can't be made from them."""
        if (spool := self._spools.pop(live.key, None)) is None:
            return None
        path = files.manifest_file(self._directory, live.experiment_id)
        try:
            if not spool.complete or spool.places != live.record.spec.jobs:
                return None
            await asyncio.to_thread(spool.assemble, path)
        except OSError:
            return None
        finally:
            spool.delete()
        return path

    def _begin(self, live: Live) -> Spool | None:
        spec = live.record.spec
        if live.record.published_seq or len(self._spools) >= _MAX_SPOOLS or spec.jobs > _MAX_JOBS:
            return None
        if spec.jobs != spec.points * spec.replicates:
            return None
        try:
            spool = Spool(self._directory / f".{live.experiment_id}{_SUFFIX}", spec.jobs)
        except OSError:
            return None
        self._spools[live.key] = spool
        return spool

    def _drop(self, key: int) -> None:
        self._spools.pop(key).delete()
