"""Why an experiment is in its state, or doesn't get on: the one place where the `reason` of a status is chosen."""

from collections.abc import Callable, Sequence

from ems_worker.core import text
from ems_worker.core.lifecycle import experiment
from ems_worker.core.records import Experiment
from ems_worker.service.ledger.live import Live

# Characters.
LONGEST_REASON = 500


class Reasons:
    """Parts of the worker say what keeps an experiment from getting on; the first that was added comes first.

    The words must not change more often than is worth a status.
    """

    def __init__(self, parts: Sequence[Callable[[Live], str | None]]) -> None:
        """Each part gives its reason, or None. The first reason wins."""
        self._parts = tuple(parts)

    def of(self, live: Live, record: Experiment | None = None) -> str | None:
        """The reason for a status of this experiment now: what is recorded with its state, else the first part's.

        `record`: as it is to be reported, if not as it is now.
        """
        record = record or live.record
        if record.reason is not None or record.state in experiment.ENDED:
            return record.reason
        said = (part(live) for part in self._parts)
        return text.single_line(next((words for words in said if words is not None), None), LONGEST_REASON) or None
