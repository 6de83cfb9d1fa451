"""Chooses the `reason` of a status: why an experiment is in its state, or why it makes no progress."""

from collections.abc import Callable, Sequence

from ems_worker.core import text
from ems_worker.core.lifecycle import experiment
from ems_worker.core.records import Experiment
from ems_worker.service.ledger.live import Live

# Characters.
MAX_REASON = 500


class Reasons:
    """Parts of the worker give reasons why an experiment makes no progress. The first reason wins.

    Each change of a reason is worth a status, so reasons must not change often.
    """

    def __init__(self, parts: Sequence[Callable[[Live], str | None]]) -> None:
        """Each part gives its reason, or None. The first reason wins."""
        self._parts = tuple(parts)

    def of(self, live: Live, record: Experiment | None = None) -> str | None:
        """The reason for a status of this experiment: the one recorded with its state, else that of the first part.

        `record` is the state to be reported, if it isn't the present one.
        """
        record = record or live.record
        if record.reason is not None or record.state in experiment.ENDED:
            return record.reason
        reasons = (part(live) for part in self._parts)
        return text.single_line(next((reason for reason in reasons if reason is not None), None), MAX_REASON) or None
