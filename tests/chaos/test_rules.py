"""The rules that judge the other tests here notice evidence that was tampered with."""

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
async def genuine(tmp_path: Path) -> Evidence:
    """The evidence of an experiment that ended correctly: a job was retried, one failed, one is excluded."""
    world = World(FAILURES)
    limits = {"max_attempts": 2, "max_failed": 1, "max_concurrent": 3}
    world.publish(whole.plan("reef", 3, 2, limits=limits))
    async with Life.begun(world, tmp_path, 4) as life:
        for _ in range(5):
            for step in (life.take_plans, life.expand, life.dispatch):
                await step()
            for name in world.running:
                world.end(name)
            await life.track(world.events)
            await life.report()
            world.clock.seconds += 5
        await life.steer("exclude", "reef", request_id="r-1", where="food == 2 and replicate == 1")
        await life.check()
        await life.report()
    return world.evidence(tmp_path / "manifest.db")


def row(name: str, **changes: Any) -> Callable[[Evidence], Evidence]:
    """Changes the row of this run."""

    def tamper(evidence: Evidence) -> Evidence:
        runs = [{**row, **changes} if row["simulation_id"] == name else row for row in evidence.runs]
        return replace(evidence, runs=runs)

    return tamper


def experiment(**changes: Any) -> Callable[[Evidence], Evidence]:
    """Changes the row of the experiment."""
    return lambda evidence: replace(evidence, experiments=[{**evidence.experiments[0], **changes}])


def change(**changes: Any) -> Callable[[Evidence], Evidence]:
    """Changes the row of the change."""
    return lambda evidence: replace(evidence, changes=[{**evidence.changes[0], **changes}])


def calls(change: Callable[[list[Sequence[str]]], object]) -> Callable[[Evidence], Evidence]:
    """Changes the orchestrator's log of calls."""

    def tamper(evidence: Evidence) -> Evidence:
        log = list(evidence.calls)
        change(log)
        return replace(evidence, calls=log)

    return tamper


def status(**changes: Any) -> Callable[[Evidence], Evidence]:
    """Changes the last status."""
    return lambda evidence: replace(evidence, last_status={"reef": {**evidence.last_status["reef"], **changes}})


def index(log: list[Sequence[str]], kind: str, name: str) -> int:
    return next(number for number, call in enumerate(log) if (call[0], call[1]) == (kind, name))


def retry_early(log: list[Sequence[str]]) -> None:
    """Has the second attempt accepted before the first one ended."""
    log.insert(index(log, "ended", FIRST), log.pop(index(log, "accepted", SECOND)))


def crowd(log: list[Sequence[str]]) -> None:
    """Has all first attempts accepted before any of them ends."""
    log.sort(key=lambda call: (call[1].endswith("a2"), call[0] == "ended"))


TAMPERED: list[tuple[str, Callable[[Evidence], Evidence]]] = [
    ("durable_before_accepted", calls(lambda log: log.append(["accepted", "reef-p000009-r000-a1", "x"]))),
    ("durable_before_accepted", row(GOOD, submitted_at=None)),
    ("durable_before_accepted", row(GOOD, config_sha="ab")),
    ("ids_are_functions_of_the_plan", row(GOOD, seed=7)),
    ("ids_are_functions_of_the_plan", row(GOOD, params='{"food": 7}')),
    ("ids_are_functions_of_the_plan", row(GOOD, config_sha="ab")),
    ("nothing_is_started_twice", calls(lambda log: log.append(log[0]))),
    ("nothing_is_started_twice", calls(lambda log: log.append(["conflict", GOOD, "x"]))),
    ("attempts_follow_failures", calls(retry_early)),
    ("attempts_follow_failures", row(FIRST, state="running")),
    ("nothing_published_is_ahead", status(revision=1000)),
    ("nothing_published_is_ahead", experiment(ended_seq=2)),
    ("nothing_published_is_ahead", row(GOOD, job_revision=0)),
    ("windows_are_kept", calls(crowd)),
    ("acked_plans_are_decided_once", lambda evidence: replace(evidence, acked={99: {}})),
    ("acked_plans_are_decided_once", lambda evidence: replace(evidence, decisions={})),
    ("acked_plans_are_decided_once", lambda evidence: replace(evidence, submissions=[])),
    ("every_job_has_one_end", row(GOOD, state="submitted")),
    ("every_job_has_one_end", row(GOOD, waiting="awaiting")),
    ("every_job_has_one_end", row(FIRST, current=1)),
    ("every_job_has_one_end", row(GOOD, ended_seq=1)),
    ("every_job_has_one_end", experiment(state="running")),
    ("results_are_those_of_the_manifest", lambda evidence: replace(evidence, results=evidence.results[1:])),
    (
        "results_are_those_of_the_manifest",
        lambda evidence: replace(evidence, results=[*evidence.results, {**evidence.results[0], "seq": 9}]),
    ),
    ("results_are_those_of_the_manifest", row(GOOD, metrics="{}")),
    ("results_are_those_of_the_manifest", experiment(published_seq=1)),
    ("the_last_status_is_the_end", status(state="running")),
    ("the_last_status_is_the_end", lambda evidence: replace(evidence, last_status={})),
    ("the_last_status_is_the_end", row(GOOD, state="failed")),
    ("jobs_end_as_their_runs_did", row(GOOD, error_kind="lost")),
    ("jobs_end_as_their_runs_did", row(GOOD, metrics="{}")),
    ("jobs_end_as_their_runs_did", row(SECOND, current=0)),
    ("each_round_settles_once", lambda evidence: replace(evidence, settled=[])),
    ("each_round_settles_once", lambda evidence: replace(evidence, settled=[*evidence.settled, *evidence.settled])),
    ("each_round_settles_once", experiment(round=2)),
    ("every_change_is_closed", change(applied_ms=None)),
    ("every_change_is_closed", change(judged_point=1)),
    ("every_change_is_closed", lambda evidence: replace(evidence, changed=evidence.changed[:1])),
    ("every_change_is_closed", lambda evidence: replace(evidence, changes=[])),
    ("excluded_jobs_leave_the_aggregates", row("reef-p000002-r001-a1", excluded=None)),
    ("excluded_jobs_leave_the_aggregates", row(GOOD, metrics='{"population": 7}')),
    ("nothing_else_is_a_dead_letter", lambda evidence: replace(evidence, dead=[Stored(1, "ems.dlq.event", {})])),
]


async def test_genuine_evidence_satisfies_all_rules(genuine: Evidence) -> None:
    """Each rule has at least one case of tampering below."""
    invariants.check(genuine, EXPECTED)
    rules = {rule.__name__ for rule in invariants.ALWAYS + invariants.AT_THE_END}
    assert rules == {name for name, _ in TAMPERED}


async def test_tampering_is_noticed_by_the_rule_against_it(genuine: Evidence) -> None:
    """The other rules may notice it, too."""
    for rule, tamper in TAMPERED:
        with pytest.raises(AssertionError, match=f"(?m)^{rule}: "):
            invariants.check(tamper(genuine), EXPECTED)


async def test_a_state_or_number_that_goes_back_is_noticed(genuine: Evidence) -> None:
    """Cases are a rank, an end and a revision."""
    onwards.check(genuine, genuine)
    for tamper in (row(GOOD, state="running"), row(FIRST, state="completed"), experiment(revision=0)):
        with pytest.raises(AssertionError):
            onwards.check(genuine, tamper(genuine))
