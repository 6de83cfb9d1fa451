"""Counts of jobs and aggregates of their metrics, from rows of the manifest."""

import math
from collections.abc import Iterable, Sequence

from ems_worker.adapters.manifest import reads
from ems_worker.core.lifecycle import tally as tallies
from ems_worker.core.lifecycle.aggregate import Aggregate
from ems_worker.core.lifecycle.run import StopReason
from ems_worker.core.lifecycle.tally import Alike, Bucket, Tally
from ems_worker.core.records import PointRecord, PointRow


def tally(
    experiment: reads.TrackedRow,
    tracked: Sequence[str],
    counted: Iterable[reads.CountedRow],
    metrics: Iterable[reads.MetricRow],
) -> Tally:
    """An experiment's counts over all its jobs, and its aggregates."""
    alike = [
        Alike(
            Bucket(row.bucket),
            row.is_excluded == 1,
            None if row.stop_reason is None else StopReason(row.stop_reason),
            row.drains == 1,
            row.jobs,
        )
        for row in counted
    ]
    return tallies.tally(experiment.jobs, alike, aggregates(tracked, metrics))


def point(
    record: PointRecord,
    tracked: Sequence[str],
    jobs: Iterable[reads.PointJobsRow],
    metrics: Iterable[reads.PointMetricRow],
) -> PointRow:
    """A point with counts over all its jobs, and its aggregates."""
    counts: dict[Bucket, int] = {}
    ended_seq, excluded, reason, is_open = 0, 0, None, False
    for row in jobs:
        counts[Bucket(row.bucket)] = row.jobs
        ended_seq = max(ended_seq, row.ended_seq or 0)
        excluded += row.excluded_jobs
        reason = reason or row.excluded
        is_open = is_open or row.is_open == 1
    return PointRow(
        record,
        counts,
        aggregates(tracked, metrics),
        ended_seq=None if is_open or not counts else ended_seq,
        excluded=reason if excluded == sum(counts.values()) else None,
        excluded_jobs=excluded,
    )


def aggregates(
    tracked: Sequence[str], rows: Iterable[reads.MetricRow] | Iterable[reads.PointMetricRow]
) -> dict[str, Aggregate]:
    """The aggregate of each tracked metric by its name."""
    found = {name: Aggregate() for name in tracked}
    for row in rows:
        found[tracked[row.metric]] = _aggregate(row)
    return found


def _aggregate(row: reads.MetricRow | reads.PointMetricRow) -> Aggregate:
    """Null in place of a number: there are no values, or SQLite stored one that isn't a number."""
    if row.n == 0:
        return Aggregate(missing=row.missing)
    return Aggregate(
        n=row.n,
        mean=math.nan if row.mean is None else row.mean,
        m2=math.nan if row.m2 is None else row.m2,
        min=math.nan if row.min is None else row.min,
        max=math.nan if row.max is None else row.max,
        missing=row.missing,
    )
