"""Which version of the model the orchestrator runs, and which experiments need another one."""

from ems_worker.core.points.plan import Plan


class Versions:
    """`reported`: the version that the orchestrator reported; empty if it reports none; None if it isn't known now.

    It isn't known while the orchestrator is away and until it reports again: it may have been replaced by a newer one.
    """

    def __init__(self) -> None:
        self.reported: str | None = None

    def waiting(self, plan: Plan) -> str | None:
        """Why no run of this plan is started now; None if the plan's version, or any version, may be running."""
        needed = plan.model_version
        if needed is None or self.reported in ("", needed):
            return None
        present = "has not reported its version yet" if self.reported is None else f"runs {self.reported!r}"
        return f"paused: waiting for model version {needed!r}; the orchestrator {present}"
