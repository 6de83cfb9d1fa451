"""How much work one publisher may have in the worker at once."""

from collections.abc import Sequence
from dataclasses import dataclass

from ems_worker.errors import Problem


@dataclass(frozen=True, slots=True)
class Quotas:
    """Caps for each publisher; None: no cap. All publishers without a name share one quota."""

    experiments: int | None = None
    jobs: int | None = None
    priority: int | None = None

    @property
    def counted(self) -> bool:
        """Whether a publisher's open work is limited, and so has to be counted."""
        return self.experiments is not None or self.jobs is not None


@dataclass(frozen=True, slots=True)
class OpenWork:
    """How many open experiments a publisher has, and how many jobs these have, including jobs that ended."""

    experiments: int = 0
    jobs: int = 0


def refusals(quotas: Quotas, publisher: str | None, open_work: OpenWork, jobs: int) -> Sequence[Problem]:
    """Why a publisher with this open work may not have another experiment of `jobs` jobs; empty if it may."""
    name = f"publisher {publisher}" if publisher is not None else "publishers without a name of their own"
    problems = []
    if quotas.experiments is not None and open_work.experiments >= quotas.experiments:
        message = (
            f"{name} may have {quotas.experiments:,} experiments open at once (EMS_MAX_OPEN_EXPERIMENTS): send it "
            "again when one has ended"
        )
        problems.append(Problem("too_many_open_experiments", "", message))
    if quotas.jobs is not None and open_work.jobs + jobs > quotas.jobs:
        message = (
            f"{name} may have {quotas.jobs:,} jobs in open experiments (EMS_MAX_OPEN_JOBS), has {open_work.jobs:,}, "
            f"and the plan has {jobs:,}: make it smaller, or send it again when an experiment has ended"
        )
        problems.append(Problem("too_many_open_jobs", "", message))
    return problems


def priority_refusal(quotas: Quotas, priority: int) -> Problem | None:
    """Why a plan may not have this priority; None if it may."""
    if quotas.priority is None or priority <= quotas.priority:
        return None
    message = f"{priority} is over {quotas.priority}, the highest that plans may ask for here (EMS_MAX_PRIORITY)"
    return Problem("priority_too_high", "limits.priority", message, suggestion=str(quotas.priority))
