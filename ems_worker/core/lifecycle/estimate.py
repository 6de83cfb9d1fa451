"""How long a plan would take, from the runs that the worker has seen end."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Past:
    """A completed run: whether it had the plan's base configuration, its model's version if told, its seconds."""

    same_base: bool
    model_version: str | None
    seconds: float


def estimate(past: Sequence[Past], jobs: int, slots: int) -> dict[str, Any] | None:
    """Seconds from the first start to the last end with `slots` runs at once; None where no run tells.

    `past` is newest first; only runs of the newest one's model count. Of these, those with the plan's own base
    configuration stand before all others; of a model without a version only they count.
    """
    if not past or slots < 1:
        return None
    model = past[0].model_version
    same_model = [one for one in past if one.model_version == model]
    alike = [one for one in same_model if one.same_base] or ([] if model is None else same_model)
    if not alike:
        return None
    mean = statistics.fmean(max(0.0, one.seconds) for one in alike)
    rounds = math.ceil(jobs / slots)
    return {
        "seconds": round(rounds * mean, 3),
        "mean_run_seconds": round(mean, 3),
        "runs": len(alike),
        "slots": slots,
    }
