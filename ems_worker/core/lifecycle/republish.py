"""How a job of a restored manifest compares with its last end that was published since the backup.

Time limits, and changes at a moment that isn't known exactly, are in no event. Because of them a job may have ended in
another way than before, or less often; its readers take the result with the highest `job_revision`.
"""

from dataclasses import replace

from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.job import Job
from ems_worker.core.wire import PublishedResult


def counted(restored: Job, published: PublishedResult) -> Job:
    """The job with at least as many ends as were published; the same job if it has them."""
    current = restored.current
    if current.job_revision >= published.job_revision:
        return restored
    return restored.with_run(replace(current, job_revision=published.job_revision))


def ends_anew(restored: Job, attempt: int, published: PublishedResult) -> bool:
    """Whether the job has ended otherwise than its last result says, which is of this attempt."""
    current = restored.current
    if not current.settled or current.job_revision > published.job_revision:
        return False
    ours = current.attempt, str(experiment.job_state(current)), current.excluded
    return ours != (attempt, published.state, published.excluded)
