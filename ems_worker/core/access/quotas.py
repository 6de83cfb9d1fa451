"""How much of the worker one publisher may hold at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from ems_worker.errors import Problem


@dataclass(frozen=True, slots=True)
class Quotas:
    """Caps for each publisher; None: no cap. Those without a name share theirs."""

    experiments: int | None = None
    jobs: int | None = None
    priority: int | None = None

    @property
    def counted(self) -> bool:
        """Whether what a publisher holds has to be known."""
        return self.experiments is not None or self.jobs is not None


@dataclass(frozen=True, slots=True)
class Held:
    """What a publisher's experiments that have not ended come to; `jobs` are all of theirs, ended ones too."""

    experiments: int = 0
    jobs: int = 0


def refusals(quotas: Quotas, publisher: str | None, held: Held, jobs: int) -> Sequence[Problem]:
    """Why a publisher that holds so much may have no new experiment of so many jobs; empty: it may."""
    who = f"publisher {publisher}" if publisher is not None else "publishers without a name of their own"
    found = []
    if quotas.experiments is not None and held.experiments >= quotas.experiments:
        words = (
            f"{who} may have {quotas.experiments:,} experiments open at once (EMS_MAX_OPEN_EXPERIMENTS): send it again "
            "when one has ended"
        )
        found.append(Problem("too_many_open_experiments", "", words))
    if quotas.jobs is not None and held.jobs + jobs > quotas.jobs:
        words = (
            f"{who} may have {quotas.jobs:,} jobs in open experiments (EMS_MAX_OPEN_JOBS), has {held.jobs:,}, and the "
            f"plan has {jobs:,}: make it smaller, or send it again when an experiment has ended"
        )
        found.append(Problem("too_many_open_jobs", "", words))
    return found


def priority_refusal(quotas: Quotas, priority: int) -> Problem | None:
    """Why a plan may not ask for this priority, or None."""
    if quotas.priority is None or priority <= quotas.priority:
        return None
    words = f"{priority} is over {quotas.priority}, the highest that plans may ask for here (EMS_MAX_PRIORITY)"
    return Problem("priority_too_high", "limits.priority", words, suggestion=str(quotas.priority))
