"""What the worker should reach, and whether it does. Pure: the measured values come in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal: `value` should be at most `target`, or at least, in this unit."""

    number: str
    text: str
    target: float
    unit: str = ""
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Whether a value reaches the goal."""
        return value >= self.target if self.at_least else value <= self.target

    @property
    def sign(self) -> str:
        """How a value is compared with the target, for people."""
        return "≥" if self.at_least else "≤"


GOALS: Final = (
    Goal("1a", "unary calls: jobs/s, as a part of the raw calls'", 0.38, at_least=True),
    Goal("1b", "unary calls: CPU a job, in CPU of a raw call", 2.4),
    Goal("2a", "batches: CPU of the worker a job", 110, "µs"),
    Goal("2b", "batches: jobs/s, as a multiple of unary calls'", 2.5, at_least=True),
    Goal("3a", "idle: from a plan's publication to its first start call", 8, "ms"),
    Goal("3b", "idle: from a run's event to the terminal status", 6, "ms"),
    Goal("3c", "10,000 jobs: from the last event to the terminal status", 100, "ms"),
    Goal("4a", "CPU a job with 100,000 jobs, as a multiple of that with 1,000", 1.1),
    Goal("4b", "peak memory with 100,000 jobs, as a multiple of that with 1,000", 1.2),
    Goal("4b-mb", "peak memory with 100,000 jobs", 85, "MB"),
    Goal("4c", "peak memory with 1,000,000 jobs", 150, "MB"),
    Goal("4d", "database a job, beyond metrics and parameters", 300, "bytes"),
    Goal("4e", "ten experiments at once, as a multiple of one with as many jobs", 1.1),
    Goal("4f", "5,000 live experiments: choosing what to start", 10, "ms"),
    Goal("5a", "an idle worker, of a core", 0.2, "%"),
    Goal("5b", "from start to ready with 1,000,000 jobs", 1.5, "s"),
    Goal("5c", "import ems_worker.client", 150, "ms"),
    Goal("5d", "ems --help", 250, "ms"),
)


# Jobs a second as a multiple of a peer's tasks a second: by unary calls, and with batches.
COMPARISONS: Final = (
    Goal("FastStream", "unary calls, as a multiple of FastStream", 1.0, at_least=True),
    Goal("SqliteHuey", "unary calls, as a multiple of SqliteHuey", 1.6, at_least=True),
    Goal("Celery", "unary calls, as a multiple of Celery", 8, at_least=True),
    Goal("Dask", "unary calls, as a multiple of Dask", 8, at_least=True),
    Goal("FastStream-batches", "batches, as a multiple of FastStream", 2.5, at_least=True),
)


def judged(
    values: Mapping[str, float | None], notes: Mapping[str, str], goals: Sequence[Goal] = GOALS
) -> dict[str, dict[str, Any]]:
    """Every goal with its measured value, null if there is none, and a note where something should be said."""
    judgements = {}
    for goal in goals:
        value = values.get(goal.number)
        judgement = {
            "value": None if value is None else _rounded(value),
            "target": goal.target,
            "met": value is not None and goal.met(value),
            "unit": goal.unit,
            "at_least": goal.at_least,
            "text": goal.text,
        }
        judgements[goal.number] = judgement | ({"note": notes[goal.number]} if goal.number in notes else {})
    return judgements


def table(judgements: Mapping[str, Mapping[str, Any]], goals: Sequence[Goal] = GOALS) -> str:
    """The goals as a table for a terminal."""
    lines = []
    for goal in goals:
        judgement = judgements[goal.number]
        value = "not measured" if judgement["value"] is None else f"{judgement['value']:,g} {goal.unit}".rstrip()
        verdict = "-" if judgement["value"] is None else "met" if judgement["met"] else "NOT MET"
        target = f"{goal.sign} {goal.target:g} {goal.unit}".rstrip()
        note = f"  ({judgement['note']})" if "note" in judgement else ""
        lines.append(f"{goal.number:18} {goal.text:65} {value:>12}  {target:12} {verdict}{note}")
    return "\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.3g}") if abs(value) < 1000 else float(round(value))
