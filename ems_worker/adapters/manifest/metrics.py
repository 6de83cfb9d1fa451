"""How saved runs change the aggregates of their points, which the manifest keeps in the same transaction.

A job that completes is added to its point. Any other change recomputes the point, because a value can't be taken out of
an aggregate exactly: a retry, metrics that arrive late, a job that is excluded or included.
"""

from collections.abc import Iterable

from ems_worker.adapters.manifest.queries import WRITES
from ems_worker.adapters.manifest.writer import Step
from ems_worker.core.lifecycle import tally
from ems_worker.core.lifecycle.run import Run
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.core.lifecycle.transitions import RunState

# Members as constants: up to Python 3.11 their look-up in the class takes longer than most functions here.
_COMPLETED = Bucket.COMPLETED

# Of the states of a run, the only one whose metrics count.
_COUNTED = RunState.COMPLETED


def steps(changes: Iterable[tuple[int, Run | None, Run]]) -> list[Step]:
    """The steps for these changes of runs, as (experiment, before, after); they run at the end of the transaction."""
    added: list[tuple[int, int, int, int]] = []
    recomputed: dict[tuple[int, int], None] = {}
    for key, before, after in changes:
        if after.state is not _COUNTED and (before is None or before.state is not _COUNTED):
            continue
        counted = before is not None and aggregated(before)
        if not aggregated(after):
            if counted:
                recomputed[key, after.point] = None
        elif not counted:
            added.append((key, after.point, after.replicate, after.attempt))
        elif before is not None and before.metrics != after.metrics:
            recomputed[key, after.point] = None
    points = list(recomputed)
    return [
        Step(WRITES["add_metrics"], added, guarded=False, stage=1),
        Step(WRITES["clear_metrics"], points, guarded=False, stage=2),
        Step(WRITES["compute_metrics"], points, guarded=False, stage=3),
    ]


def aggregated(run: Run) -> bool:
    """Whether the run's metrics count in its point's aggregates; rules.sql has the same rule."""
    return run.current and run.excluded is None and tally.bucket(run) is _COMPLETED
