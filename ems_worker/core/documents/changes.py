"""`ems.change.v1`: a requested change of an experiment and what became of it; `ems.changes.v1`: those of a group."""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ems_worker.core.documents import documents, titles
from ems_worker.core.documents.documents import Document
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import PauseOwner
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.records import Change

# The state that `counts` name for jobs that `exclude` takes out and `include` takes back.
EXCLUDED: Final = "excluded"
# The state that `counts` name for jobs that `extend` adds, and that were not there before.
NEW: Final = "new"

# With this begin the request ids of the worker's own changes: that it cancels the stragglers of a settled round.
OWN_REQUEST: Final = "settled-"
# Those of experiments that are removed because they are older than the retention.
RETENTION_REQUEST: Final = "retention-"

# The verb that removes an experiment. It isn't one of steering's: there is no experiment after it.
REMOVE: Final = "remove"

# Why a verb changed nothing in an experiment that is open.
_NOTHING: Final[Mapping[str, str]] = MappingProxyType(
    {
        Verb.PAUSE: "it is paused already",
        Verb.RESUME: "it is not paused",
        Verb.CANCEL: "it is being cancelled already",
        Verb.RETRY: "no job is to be retried",
        Verb.EXTEND: "it has all points and replicates of this plan",
        Verb.SET: "these limits apply already",
        Verb.CLOSE: "it is not kept open",
        Verb.EXCLUDE: "every job is excluded already",
        Verb.INCLUDE: "no job is excluded",
    }
)
_NO_MATCH: Final[Mapping[str, str]] = MappingProxyType(
    {
        Verb.CANCEL: "no open job matches",
        Verb.RETRY: "no ended job matches that can be retried",
        Verb.EXCLUDE: "no job matches that isn't excluded already",
        Verb.INCLUDE: "no excluded job matches",
    }
)
# The verbs that change nothing in an experiment that has ended.
_ONLY_OPEN: Final = frozenset({Verb.PAUSE, Verb.RESUME, Verb.CANCEL, Verb.CLOSE})

# What pauses an experiment, and what ends the pause.
_PAUSES: Final[Mapping[PauseOwner, str]] = MappingProxyType(
    {
        PauseOwner.PERSON: "paused by a person",
        PauseOwner.HOLD: "its plan holds it back until `resume`",
        PauseOwner.CANARY: "its first jobs are to be looked at; `resume` starts the others",
        PauseOwner.BUDGET: "its budget is used up; `set` raises it",
        PauseOwner.RESTORED: "the manifest was restored and changes may be missing; check it, then `resume`",
    }
)


def document(experiment_id: str, change: Change) -> Document:
    """`ems.change.v1`: the reply to a request, and the same document again once `applied` is true.

    `counts` and the numbers of points are null until every job is judged.
    """
    request = json.loads(change.request)
    final, reason = change.judged is None, request.get("reason")
    return {
        "schema": titles.CHANGE,
        "request_id": change.request_id,
        "verb": change.verb,
        "experiment_id": experiment_id,
        "changed": change.changed,
        "refused": change.refused is not None,
        "state": change.state.value,
        "round": change.round,
        "revision": change.revision,
        "reason": reason if change.changed and change.refused is None else unchanged(change.verb, change, request),
        "dry_run": bool(request.get("dry_run")),
        "counts": _counts(change) if final else None,
        "added": change.added if final else None,
        "withdrawn": change.withdrawn if final else None,
        "unchanged": change.unchanged if final else None,
        "applied": change.applied_ms is not None,
        "received_at": documents.timestamp(change.received_ms),
        "applied_at": documents.timestamp(change.applied_ms),
        "language": change.language,
        "request": request,
    }


def brief(experiment_id: str, change: Change) -> Document:
    """The same for replies to `get`: with a long plan's digest in its place, and with the counts so far."""
    whole = document(experiment_id, change)
    so_far = {
        "counts": _counts(change),
        "added": change.added,
        "withdrawn": change.withdrawn,
        "unchanged": change.unchanged,
    }
    return {**whole, "request": documents.shortened(whole["request"]), "so_far": so_far}


def group(changes: Iterable[Document]) -> Document:
    """`ems.changes.v1`: the changes of all experiments of a group that one request named."""
    return {"schema": titles.CHANGES, "changes": list(changes)}


def resumed_all(request_id: str, resumed: bool, *, dry_run: bool = False) -> Document:
    """`ems.changes.v1` of `resume` with `all`: whether the worker was held, and starts runs again now."""
    return {**group(()), "request_id": request_id, "resumed": resumed, "dry_run": dry_run}


def unchanged(verb: str, change: Change, request: Mapping[str, object]) -> str:
    """Why a change changed nothing or not all, in words that follow the experiment's name."""
    if change.refused is not None:
        return change.refused
    if change.state in experiment.ENDED and verb in _ONLY_OPEN:
        return f"it has ended ({change.state.value})"
    if request.get("where") is not None and verb in _NO_MATCH:
        return _NO_MATCH[verb]
    return _NOTHING[verb]


def pause_reason(pauses: Iterable[PauseOwner]) -> str | None:
    """Why an experiment is paused, for its status; None if nobody pauses it."""
    owners = frozenset(pauses)
    return "; ".join(text for owner, text in _PAUSES.items() if owner in owners) or None


def _counts(change: Change) -> Document:
    return {before: dict(after) for before, after in change.counts.items()}
