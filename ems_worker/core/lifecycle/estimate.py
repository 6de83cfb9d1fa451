"""How long a plan would take, estimated from completed runs."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CompletedRun:
    """How long a run took. `same_base`: it had the base configuration of the plan that is estimated.

    `model_version`: None if the orchestrator didn't report it.
    """

    same_base: bool
    model_version: str | None
    seconds: float


def estimate(runs: Sequence[CompletedRun], jobs: int, slots: int) -> dict[str, Any] | None:
    """The seconds from the first start to the last end if `slots` runs are open at once; None if no run is comparable.

    `runs` is newest first. Only runs of the same model version as the newest one are comparable. If some of these have
    the plan's base configuration, only they count; without a known version only they are comparable.
    """
    if not runs or slots < 1:
        return None
    version = runs[0].model_version
    same_model = [run for run in runs if run.model_version == version]
    comparable = [run for run in same_model if run.same_base] or ([] if version is None else same_model)
    if not comparable:
        return None
    mean = statistics.fmean(max(0.0, run.seconds) for run in comparable)
    rounds = math.ceil(jobs / slots)
    return {
        "seconds": round(rounds * mean, 3),
        "mean_run_seconds": round(mean, 3),
        "runs": len(comparable),
        "slots": slots,
    }
