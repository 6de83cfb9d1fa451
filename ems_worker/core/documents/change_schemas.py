"""The JSON Schemas of `ems.change.v1` and `ems.changes.v1`."""

from typing import Final

from ems_worker.core.documents import changes, shapes, titles
from ems_worker.core.documents.shapes import Schema
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.lifecycle.steering import Verb

_MOVED: Final = shapes.by_name(
    "jobs that the change moves, by the state that they were in",
    shapes.by_name("their numbers, by the state that they get", shapes.count("number of jobs")),
)
_POINTS: Final[Schema] = {
    "added": shapes.maybe(shapes.count("number of points that `extend` adds")),
    "withdrawn": shapes.maybe(shapes.count("number of points that `extend` withdraws")),
    "unchanged": shapes.maybe(shapes.count("number of points that `extend` leaves as they are")),
}
_KEYS: Final[Schema] = {
    "request_id": shapes.text("the id of the request"),
    "verb": shapes.choice("what was requested", [*Verb, changes.REMOVE]),
    "experiment_id": shapes.EXPERIMENT_ID,
    "changed": shapes.flag("whether the request changes anything"),
    "refused": shapes.flag("whether it can't be carried out; `reason` says why"),
    "state": shapes.choice("of the experiment after the change", ExperimentState),
    "round": shapes.count("of the experiment after the change", 1),
    "revision": shapes.count("the revision of the experiment's status that the request met"),
    "reason": shapes.maybe(shapes.text("the reason that the request gave; if it is refused or nothing changes: why")),
    "dry_run": shapes.flag("whether this only says what would happen"),
    "counts": shapes.maybe(_MOVED) | {"description": f"{_MOVED['description']}; null until every job is judged"},
    **_POINTS,
    "applied": shapes.flag("whether the change is complete: nothing of it is in flight any more"),
    "received_at": shapes.time("when the worker received the request"),
    "applied_at": shapes.maybe(shapes.time("when nothing of it was in flight any more")),
    "language": shapes.count("the version of the plan language that its `where` is in", 1),
    "request": {"type": "object", "description": "the whole request, as it was sent"},
}
_ABOUT: Final = "A requested change of an experiment, and what became of it."

CHANGE: Final = shapes.document(
    titles.CHANGE, f"{_ABOUT} Published when it is recorded, and again when it is complete.", _KEYS
)
# In replies to `get`.
BRIEF: Final = shapes.mapping(
    _ABOUT,
    {
        "schema": {"const": titles.CHANGE, "description": "name and version of this schema"},
        **_KEYS,
        "so_far": shapes.mapping("the same numbers before every job is judged", {"counts": _MOVED, **_POINTS}),
    },
)
_PAGE: Final = shapes.page(
    titles.CHANGES,
    "The changes that one request made of several experiments.",
    key="changes",
    items=CHANGE,
    position={},
)
CHANGES: Final[Schema] = {
    **_PAGE,
    "properties": {
        **_PAGE["properties"],
        "request_id": shapes.text("the id of the request; it and the next ones only in replies to `resume` with `all`"),
        "resumed": shapes.flag("whether the worker was held, and starts runs from now on"),
        "dry_run": shapes.flag("whether `resumed` only says what would happen"),
    },
}
