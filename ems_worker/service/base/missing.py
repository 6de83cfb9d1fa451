"""The error for an experiment that the manifest doesn't have, or has no more."""

from ems_worker import errors
from ems_worker.core.documents import documents
from ems_worker.service.base.ports import Manifest


async def experiment(manifest: Manifest, experiment_id: str) -> errors.NotFound:
    """Says when the experiment was removed, if it was."""
    removed_ms = await manifest.removed_ms(experiment_id)
    if removed_ms is None:
        return errors.NotFound(f"there is no experiment {experiment_id}")
    return errors.NotFound(f"the experiment {experiment_id} was removed at {documents.timestamp(removed_ms)}")
