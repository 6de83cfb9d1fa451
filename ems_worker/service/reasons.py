"""Chooses the `reason` of a status: why an experiment is in its state, or why it makes no progress."""

from collections.abc import Callable, Sequence

from ems_worker.core import text
from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import CancelMode
from ems_worker.core.records import Experiment
from ems_worker.service.ledger.live import Live

# Characters.
MAX_REASON = 500
# Up to here a number in a reason is exact.
_EXACT = 10


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
        return short(next((reason for reason in reasons if reason is not None), None))


def short(reason: str | None) -> str | None:
    """A reason as a status has it: one line, and not too long."""
    return text.single_line(reason, MAX_REASON) or None


def paused(live: Live, runs: str | None) -> str | None:
    """Who pauses the experiment, what ends the pause, and which `runs` aren't as they should be."""
    return "; ".join(filter(None, (changes.pause_reason(live.record.pauses), runs))) or None


def cancelling(live: Live) -> str | None:
    """What an experiment that is being cancelled waits for."""
    if live.record.cancel is None:
        return None
    if not live.open:
        return "being cancelled"
    one = live.open == 1
    if live.record.cancel is CancelMode.DRAIN:
        return f"being cancelled: {_roughly(live.open)} {'run' if one else 'runs'} may end"
    return f"being cancelled: {_roughly(live.open)} {'run is' if one else 'runs are'} being stopped"


def kept_open(live: Live) -> str | None:
    """That an experiment whose jobs have all ended goes on because its plan keeps it open."""
    if not live.record.kept_open or live.recorded.ended < live.recorded.total:
        return None
    return "all its jobs have ended; it stays open until `close`"


def _roughly(number: int) -> str:
    """A number in words that change rarely: rounded down to one digit."""
    if number <= _EXACT:
        return str(number)
    unit = 10 ** (len(str(number)) - 1)
    return f"{number // unit * unit:,} or more"
