"""Which version of the model the orchestrator runs, and which experiments are for another one."""

from ems_worker.core.points.plan import Plan


class Versions:
    """`told`: what the orchestrator told last; empty: it tells none; None: not known now, as it is away or just came.

    Whoever comes back may be a newer one. So nothing that asks for a version is started before it was told again.
    """

    def __init__(self) -> None:
        self.told: str | None = None

    def waiting(self, plan: Plan) -> str | None:
        """Why no run of this plan is started now, in words; None if its version is there, or can't be told."""
        asked = plan.model_version
        if asked is None or self.told in ("", asked):
            return None
        instead = "has not told its version yet" if self.told is None else f"runs {self.told!r}"
        return f"paused: waits for model version {asked!r}; the orchestrator {instead}"
