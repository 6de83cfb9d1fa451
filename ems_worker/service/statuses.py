"""Composes the status of an experiment in memory, for messages and for replies to queries."""

from collections.abc import Mapping
from typing import Any

from ems_worker.core.documents import documents
from ems_worker.core.documents.documents import Document, Pace
from ems_worker.core.lifecycle.tally import Tally
from ems_worker.core.records import Experiment
from ems_worker.service.ledger import live as lives
from ems_worker.service.ledger.live import Live

# The period in seconds over which throughput is measured, and the number of samples.
_PACE_SECONDS = 30.0
_PACE_SAMPLES = 60
# What differs between two statuses that say the same.
_FORMAL = ("revision", "updated_at", "worker_id")
# In an experiment that has ended these change only because time passes.
_FADING = ("throughput", "eta_seconds")
# How many digits of a number count in the comparison.
_DIGITS = 12


def compose(
    live: Live, record: Experiment, tally: Tally, *, worker_id: str, now_ms: int, reason: str | None
) -> Document:
    """The status with this record and these counts."""
    return documents.status(
        record,
        tally,
        worker_id=worker_id,
        now_ms=now_ms,
        pace=pace(live, record, tally),
        best=live.best,
        reason=reason,
        excluded=sum(tally.excluded.values()),
        underway=live.underway / lives.WHOLE,
    )


def sample(live: Live, tally: Tally, now: float) -> None:
    """Notes how many jobs have ended, at a monotonic time in seconds.

    A retry takes ends back: what was noted before it says nothing about the pace of now.
    """
    samples = live.samples
    if samples and samples[-1][1] > tally.ended:
        samples.clear()
    samples.append((now, tally.ended))
    while len(samples) > _PACE_SAMPLES or samples[0][0] < now - _PACE_SECONDS:
        samples.pop(0)


def pace(live: Live, record: Experiment, tally: Tally) -> Pace:
    """Throughput and remaining time, from what was noted. The latter is unknown while nothing is started."""
    found = documents.pace(live.samples, tally.total - tally.ended)
    held = bool(record.pauses) and tally.ended < tally.total
    return Pace(found.throughput) if held else found


def same(before: Mapping[str, Any] | None, after: Document, *, ended: bool) -> bool:
    """Whether two statuses say the same. `before`: None if it isn't known."""
    ignored = _FORMAL + _FADING if ended else _FORMAL
    return before is not None and _without(before, ignored) == _without(after, ignored)


def _without(document: Mapping[str, Any], keys: tuple[str, ...]) -> Document:
    return {key: _rounded(value) for key, value in document.items() if key not in keys}


def _rounded(value: Any) -> Any:
    """Numbers in the digits that count: aggregates differ in the last ones if they are added up in another order."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, Mapping):
        return {key: _rounded(one) for key, one in value.items()}
    return value
