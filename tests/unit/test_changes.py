"""The document of a change: what it says before every job is judged, and why a change changed nothing."""

import json
from typing import Any

import pytest
from msgspec.structs import replace

from ems_worker.core.documents import changes
from ems_worker.core.lifecycle import experiment
from ems_worker.core.lifecycle.experiment import ExperimentState, PauseOwner
from ems_worker.core.lifecycle.steering import Verb
from ems_worker.core.records import Change


def change(verb: str = "cancel", state: ExperimentState = ExperimentState.RUNNING, **request: Any) -> Change:
    return Change("r-1", 7, verb, json.dumps(request), 1000, state, 2, 5, judged=None)


def test_the_numbers_are_null_until_every_job_is_judged() -> None:
    """`get` has the numbers so far."""
    counts = {"pending": {"cancelled": 3}}
    judging = replace(change(), judged=(4, 0), counts=counts, added=1, withdrawn=2, unchanged=3)
    keys = ("counts", "added", "withdrawn", "unchanged")
    numbers = dict(zip(keys, (counts, 1, 2, 3), strict=True))
    assert [changes.document("reef", judging)[key] for key in keys] == [None] * 4
    assert changes.brief("reef", judging)["so_far"] == numbers
    done = changes.document("reef", replace(judging, judged=None))
    assert {key: done[key] for key in keys} == numbers


def test_a_change_that_is_refused_half_way_says_why() -> None:
    """What it changed before stays, so that it did change something."""
    refused = replace(change(reason="mine"), changed=True, refused="another version", language=2)
    assert [changes.document("reef", refused)[key] for key in ("changed", "refused", "reason", "language")] == [
        True, True, "another version", 2,
    ]  # fmt: skip


def test_a_change_is_applied_when_it_has_a_time() -> None:
    """Both times are in the document."""
    done = changes.document("reef", replace(change(), applied_ms=2000))
    assert (done["applied"], done["received_at"], done["applied_at"]) == (
        True,
        "1970-01-01T00:00:01.000Z",
        "1970-01-01T00:00:02.000Z",
    )
    open_ = changes.document("reef", change())
    assert (open_["applied"], open_["applied_at"]) == (False, None)


def test_the_request_is_whole_and_short_in_replies_to_get() -> None:
    """A restore carries the published request out again, so that it has the plan; `get` has the plan's digest."""
    request: dict[str, Any] = {
        "request_id": "r-1",
        "experiment_id": "reef",
        "plan": "x" * 5000,
        "dry_run": True,
        "reason": "more",
    }
    extend = change("extend", **request)
    whole = changes.document("reef", extend)
    assert (whole["request"], whole["dry_run"], whole["reason"]) == (request, True, "more")
    short = changes.brief("reef", extend)["request"]
    assert (short["plan"]["bytes"], short["reason"]) == (5002, "more")


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("where", [None, "point == 3"])
@pytest.mark.parametrize("state", ExperimentState)
def test_a_change_without_effect_says_why(verb: str, where: str | None, state: ExperimentState) -> None:
    """In any state, and in place of the reason that the request gave."""
    nothing = replace(change(verb, state, where=where, reason="mine"), changed=False)
    reason = changes.document("reef", nothing)["reason"]
    if verb in ("pause", "resume", "cancel", "close") and state in experiment.ENDED:
        assert reason == f"it has ended ({state})"
    else:
        assert ("match" in reason) is (where is not None and verb in ("cancel", "retry", "exclude", "include"))


def test_a_group_has_a_document_for_each_experiment() -> None:
    """`resume` of a held worker concerns no experiment."""
    assert changes.group([{"a": 1}]) == {"schema": "ems.changes.v1", "changes": [{"a": 1}]}
    held = changes.resumed_all("r-1", False)
    assert (held["changes"], held["request_id"], held["resumed"]) == ([], "r-1", False)


def test_every_owner_of_a_pause_has_words() -> None:
    """They come in the same order whatever the set, and without an owner there is no reason."""
    assert changes.pause_reason([]) is None
    words = [changes.pause_reason([owner]) for owner in PauseOwner]
    assert changes.pause_reason(reversed(PauseOwner)) == "; ".join(str(one) for one in words)
    assert None not in words


def test_a_refused_change_says_why() -> None:
    """That is not the same as a change without effect."""
    refused = changes.document("reef", replace(change("extend"), changed=False, refused="the plan has no points"))
    assert (refused["changed"], refused["refused"], refused["reason"]) == (False, True, "the plan has no points")
    assert not changes.document("reef", replace(change("pause"), changed=False))["refused"]
