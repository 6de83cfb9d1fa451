"""The manifest file of an ended experiment."""

from pathlib import Path

import structlog

from ems_worker import errors
from ems_worker.adapters import files
from ems_worker.service.base.ports import Manifest
from ems_worker.service.ledger.live import Live

log = structlog.get_logger()


async def write_manifest(directory: Path, manifest: Manifest, live: Live) -> None:
    """Writes the manifest file of an ended experiment; its end is reported in any case."""
    try:
        path = await files.write_manifest(directory, live.experiment_id, manifest.export(live.key))
    except errors.FileUnwritable as error:
        # `ems export` can write it at any time.
        log.error("experiment.manifest_not_written", experiment_id=live.experiment_id, reason=str(error))
    else:
        log.info("experiment.manifest_written", experiment_id=live.experiment_id, path=str(path))
