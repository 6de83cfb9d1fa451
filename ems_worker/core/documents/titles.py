"""The names of the documents that leave the worker: their key `schema`, and the title of their JSON Schema."""

from typing import Final

_PREFIX: Final = "ems."
_VERSION: Final = ".v1"


def full(word: str) -> str:
    """The whole name of a document by its word: `ems.status.v1` of `status`."""
    return f"{_PREFIX}{word}{_VERSION}"


def word(name: str) -> str:
    """The word of a document's name: `status` of `ems.status.v1`."""
    return name.removeprefix(_PREFIX).removesuffix(_VERSION)


DECISION: Final = full("decision")
STATUS: Final = full("status")
RESULT: Final = full("result")
POINT: Final = full("point")
SETTLED: Final = full("settled")
CHANGE: Final = full("change")
CHANGES: Final = full("changes")
CONFIG: Final = full("config")
PLAN: Final = full("plan_text")
LIST: Final = full("list")
JOBS: Final = full("jobs")
POINTS: Final = full("points")
RESULTS: Final = full("results")
