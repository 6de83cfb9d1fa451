"""The limits of an experiment as replies to `get` have them: written as in a plan, with those that `set` changed."""

from typing import Final

from ems_worker.core.documents import shapes
from ems_worker.core.documents.documents import Document
from ems_worker.core.documents.shapes import Schema
from ems_worker.core.language.options import ExperimentLimits

SCHEMA: Final[Schema] = shapes.mapping(
    "the limits in force, as a plan writes them; null unless the experiment is open",
    {
        "max_concurrent": shapes.maybe(shapes.count("number of runs that may be open; null: any", 1)),
        "run_timeout_seconds": shapes.maybe(shapes.number("time limit of a run; null: the worker's", minimum=0)),
        "max_attempts": shapes.count("number of runs that a job may have", 1),
        "retry_on": shapes.sequence("kinds of errors after which a job is retried", shapes.text("a kind of error")),
        "max_failed": {
            "type": ["integer", "string"],
            "description": "how many jobs may fail: a number, or a percentage such as '5%'",
        },
        "fail_fast": shapes.flag("whether the experiment stops once more have failed"),
        "priority": {"type": "integer", "description": "runs of experiments with a higher one start first"},
    },
)

OVERRIDES: Final = shapes.by_name(
    "limits that `set` put in place of the plan's, by their keys", {"description": "as it is written in a plan"}
)


def in_force(limits: ExperimentLimits) -> Document:
    """The limits as a plan writes them."""
    allowed = limits.max_failed
    return {
        "max_concurrent": limits.max_concurrent,
        "run_timeout_seconds": limits.run_timeout_seconds,
        "max_attempts": limits.max_attempts,
        "retry_on": sorted(limits.retry_on),
        "max_failed": allowed.count if allowed.percent is None else f"{float(allowed.percent):.15g}%",
        "fail_fast": limits.fail_fast,
        "priority": limits.priority,
    }
