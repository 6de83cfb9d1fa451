"""The rules that judge all the other tests here find what they are for: evidence that was tampered with."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support import invariants, onwards, oracle, whole
from tests.support.evidence import Evidence, Stored
from tests.support.world import Life, World

FAILURES = oracle.Failures.parse(["*-p000000-r000-a1:infrastructure", "*-p000001-r001-a*:simulation"])
EXPECTED = invariants.Expected(FAILURES, window=4)
FIRST, SECOND, GOOD = "reef-p000000-r000-a1", "reef-p000000-r000-a2", "reef-p000002-r000-a1"


@pytest.fixture
async def found(tmp_path: Path) -> Evidence:
    """Of an experiment that ended as it should, with a job that was tried twice, and one that failed."""
    world = World(FAILURES)
    limits = {"max_attempts": 2, "max_failed": 1, "max_concurrent": 3}
    world.publish(whole.plan("reef", 3, 2, limits=limits))
    async with Life.begun(world, tmp_path, 4) as life:
        for _ in range(5):
            for deed in (life.take_plans, life.expand, life.dispatch):
                await deed()
            for name in world.running:
                world.end(name)
            await life.track(world.events)
            await life.report()
            world.clock.seconds += 5
    return world.evidence(tmp_path / "manifest.db")


def row(name: str, **changes: Any) -> Callable[[Evidence], Evidence]:
    """With another row for this run."""

    def tamper(one: Evidence) -> Evidence:
        runs = [{**row, **changes} if row["simulation_id"] == name else row for row in one.runs]
        return replace(one, runs=runs)

    return tamper


def experiment(**changes: Any) -> Callable[[Evidence], Evidence]:
    """With another row for the experiment."""
    return lambda one: replace(one, experiments=[{**one.experiments[0], **changes}])


def calls(change: Callable[[list[Sequence[str]]], object]) -> Callable[[Evidence], Evidence]:
    """With another story told by the oracle."""

    def tamper(one: Evidence) -> Evidence:
        told = list(one.calls)
        change(told)
        return replace(one, calls=told)

    return tamper


def status(**changes: Any) -> Callable[[Evidence], Evidence]:
    """With another last status."""
    return lambda one: replace(one, last_status={"reef": {**one.last_status["reef"], **changes}})


def index(told: list[Sequence[str]], word: str, name: str) -> int:
    return next(number for number, words in enumerate(told) if (words[0], words[1]) == (word, name))


def early(told: list[Sequence[str]]) -> None:
    """The second attempt is accepted before the first ended."""
    told.insert(index(told, "ended", FIRST), told.pop(index(told, "accepted", SECOND)))


def crowded(told: list[Sequence[str]]) -> None:
    """All first attempts are accepted before any ends."""
    told.sort(key=lambda words: (words[1].endswith("a2"), words[0] == "ended"))


TAMPERED: list[tuple[str, Callable[[Evidence], Evidence]]] = [
    ("durable_before_accepted", calls(lambda told: told.append(["accepted", "reef-p000009-r000-a1", "x"]))),
    ("durable_before_accepted", row(GOOD, submitted_at=None)),
    ("durable_before_accepted", row(GOOD, config_sha="ab")),
    ("ids_are_functions_of_the_plan", row(GOOD, seed=7)),
    ("ids_are_functions_of_the_plan", row(GOOD, params='{"food": 7}')),
    ("ids_are_functions_of_the_plan", row(GOOD, config_sha="ab")),
    ("nothing_is_started_twice", calls(lambda told: told.append(told[0]))),
    ("nothing_is_started_twice", calls(lambda told: told.append(["conflict", GOOD, "x"]))),
    ("attempts_follow_failures", calls(early)),
    ("attempts_follow_failures", row(FIRST, state="running")),
    ("nothing_published_is_ahead", status(revision=1000)),
    ("nothing_published_is_ahead", experiment(ended_seq=2)),
    ("nothing_published_is_ahead", row(GOOD, job_revision=0)),
    ("windows_are_kept", calls(crowded)),
    ("acked_plans_are_decided_once", lambda one: replace(one, acked={99: {}})),
    ("acked_plans_are_decided_once", lambda one: replace(one, decisions={})),
    ("acked_plans_are_decided_once", lambda one: replace(one, submissions=[])),
    ("every_job_has_one_end", row(GOOD, state="submitted")),
    ("every_job_has_one_end", row(GOOD, waiting="awaiting")),
    ("every_job_has_one_end", row(FIRST, current=1)),
    ("every_job_has_one_end", row(GOOD, ended_seq=1)),
    ("every_job_has_one_end", experiment(state="running")),
    ("results_are_those_of_the_manifest", lambda one: replace(one, results=one.results[1:])),
    (
        "results_are_those_of_the_manifest",
        lambda one: replace(one, results=[*one.results, {**one.results[0], "seq": 9}]),
    ),
    ("results_are_those_of_the_manifest", row(GOOD, metrics="{}")),
    ("results_are_those_of_the_manifest", experiment(published_seq=1)),
    ("the_last_status_is_the_end", status(state="running")),
    ("the_last_status_is_the_end", lambda one: replace(one, last_status={})),
    ("the_last_status_is_the_end", row(GOOD, state="failed")),
    ("the_end_is_what_the_runs_say", row(GOOD, error_kind="lost")),
    ("the_end_is_what_the_runs_say", row(GOOD, metrics="{}")),
    ("the_end_is_what_the_runs_say", row(SECOND, current=0)),
    ("nothing_else_is_put_aside", lambda one: replace(one, dead=[Stored(1, "ems.dlq.event", {})])),
]


async def test_what_is_right_is_not_complained_about(found: Evidence) -> None:
    """And all that there is to complain about can be."""
    invariants.check(found, EXPECTED)
    rules = {rule.__name__ for rule in invariants.ALWAYS + invariants.AT_THE_END}
    assert rules == {name for name, _ in TAMPERED}


async def test_every_tampering_is_found_by_its_rule(found: Evidence) -> None:
    """Each by the rule that is meant to."""
    for rule, tamper in TAMPERED:
        with pytest.raises(AssertionError, match=f"(?m)^{rule}: "):
            invariants.check(tamper(found), EXPECTED)


async def test_what_goes_back_is_found(found: Evidence) -> None:
    """A rank, an end, a number."""
    onwards.check(found, found)
    for tamper in (row(GOOD, state="running"), row(FIRST, state="completed"), experiment(revision=0)):
        with pytest.raises(AssertionError):
            onwards.check(found, tamper(found))
