"""What a manifest keeps of submissions, experiments, points and events, in a real file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from ems_worker import errors
from ems_worker.adapters.manifest import Manifest, store
from ems_worker.core.lifecycle.experiment import ExperimentState
from ems_worker.core.records import DueRuns, ListedExperiment, ParkedEvent, PlanDecision, PointRecord, Which
from tests.support import manifests


@pytest.fixture
async def manifest(tmp_path: Path) -> AsyncIterator[Manifest]:
    async with Manifest.open(tmp_path / "manifest.db") as opened:
        yield opened


async def test_a_decision_comes_back_as_it_was_recorded(manifest: Manifest) -> None:
    """Every field of a submission is read back, by the identity of its message."""
    one = manifests.submission(
        7,
        decision=PlanDecision.DUPLICATE,
        experiment_id="reef",
        publisher="evolution",
        reply_to="_INBOX.x",
        plan_sha=None,
    )
    await manifest.record_submission(one, None)
    assert await manifest.submission(one.identity) == one
    created_ns, seq, stored_ms = one.identity
    for other in ((created_ns + 1, seq, stored_ms), (created_ns, seq + 1, stored_ms), (created_ns, seq, stored_ms + 1)):
        assert await manifest.submission(other) is None


async def test_an_accepted_plan_and_its_experiment_are_recorded_together_or_not_at_all(manifest: Manifest) -> None:
    """If the experiment's id is taken, the whole submission is refused."""
    await manifest.record_submission(manifests.submission(1, "reef"), manifests.spec("reef"))
    with pytest.raises(errors.ManifestConflict, match="experiment_id"):
        await manifest.record_submission(manifests.submission(2, "reef"), manifests.spec("reef", points=9))
    assert await manifest.submission(manifests.submission(2).identity) is None
    record = await manifest.experiment("reef")
    assert record is not None
    assert record.spec.points == 3


async def test_a_message_is_decided_once(manifest: Manifest) -> None:
    """A second decision about a message is refused together with its experiment."""
    await manifest.record_submission(manifests.submission(1), None)
    with pytest.raises(errors.ManifestConflict):
        await manifest.record_submission(manifests.submission(1, "reef"), manifests.spec("reef"))
    assert await manifest.experiment("reef") is None


async def test_an_experiment_comes_back_as_it_was_recorded(manifest: Manifest) -> None:
    """Every field of a plan is read back, its bytes unchanged."""
    new = manifests.spec(
        "reef",
        group="study-1",
        tags=("a", "ä"),
        description="heat stress\non the reef",
        parameters={"food": "simulation_layer.initial_conditions.initial_food_count"},
        metrics=("population", "life span"),
        headings={"parameters": {"food": {"label": "Futter", "unit": "kg"}}, "metrics": {}},
        goal="minimize",
    )
    record = await manifests.accepted(manifest, new)
    assert record.spec == new
    assert (record.state, record.round, record.expanded_points) == (ExperimentState.ACCEPTED, 1, 0)
    bare = manifests.spec("bare", metrics=(), goal_metric=None, goal=None)
    assert (await manifests.accepted(manifest, bare, seq=2)).spec == bare


async def test_decisions_wait_until_they_are_published(manifest: Manifest) -> None:
    """Unpublished decisions come oldest first, published ones no more; marking one twice is harmless."""
    both = [manifests.submission(2, received_ms=5), manifests.submission(1, received_ms=9)]
    for one in both:
        await manifest.record_submission(one, None)
    assert await manifest.unpublished_decisions() == both
    await manifest.decisions_published([both[0], both[0]])
    await manifest.decisions_published([both[0]])
    assert await manifest.unpublished_decisions() == [both[1]]
    await manifest.decisions_published([])


async def test_an_experiment_changes_only_from_the_expected_state(manifest: Manifest) -> None:
    """Times follow the state, reopening begins a new round, and an unexpected state changes nothing."""
    record = await manifests.accepted(manifest, manifests.spec())
    state = ExperimentState
    started = await manifests.moved(manifest, record, state.RUNNING, at_ms=10)
    with pytest.raises(errors.ManifestConflict, match="save_experiment"):
        await manifests.moved(manifest, record, state.CANCELLED, at_ms=11)
    ended = await manifests.moved(manifest, started, state.FAILED, at_ms=20, reason="too many jobs failed")
    assert (ended.state, ended.started_ms, ended.finished_ms) == (state.FAILED, 10, 20)
    assert (ended.round, ended.reason) == (1, "too many jobs failed")
    again = await manifests.moved(manifest, ended, state.RUNNING, at_ms=30)
    assert (again.round, again.started_ms, again.finished_ms, again.reason) == (2, 10, None, None)


async def test_expansion_continues_exactly_where_it_stopped(manifest: Manifest) -> None:
    """A chunk that is recorded already is refused as a whole; parameters of any size are read back."""
    record = await manifests.accepted(manifest, manifests.spec(points=3, replicates=2))
    points, runs = manifests.jobs_of([0, 1], 2)
    points[1] = PointRecord(1, {"genome": [2**70, -0.1, "x"], "flag": None}, "elite.1", {"origin": "mutant"})
    await manifest.expand(record.key, points, runs, 2)
    with pytest.raises(errors.ManifestConflict, match="advance_expansion"):
        await manifest.expand(record.key, points, runs, 2)
    found = await manifest.points_by_number(record.key, [0, 1, 1, 2])
    assert found == {0: points[0], 1: points[1]}
    more, their_runs = manifests.jobs_of([2], 2)
    await manifest.expand(record.key, more, their_runs, 3)
    assert await manifest.due_counts([record.key], 0, 100) == {record.key: DueRuns(6, 0)}
    with pytest.raises(errors.ManifestConflict, match="expanded_points_exist"):
        await manifest.expand(record.key, *manifests.jobs_of([3], 2), 4)


async def test_an_experiment_is_unfinished_until_its_end_is_published(manifest: Manifest) -> None:
    """It is loaded again until its results and the status with its end are published."""

    async def unfinished() -> list[str]:
        return [one.spec.experiment_id for one in await manifest.unfinished()]

    record = await manifests.running(manifest)
    assert await unfinished() == ["reef"]
    await manifest.record_status(record.key, 4, b"{}")
    await manifest.revision_published(record.key, 4)
    await manifests.complete_all(manifest, record)
    await manifests.moved(manifest, record, ExperimentState.COMPLETED, at_ms=9)
    await manifest.results_published(record.key, 6)
    assert await unfinished() == ["reef"], "no status has told of the end"
    await manifest.record_status(record.key, 5, b"{}")
    assert await unfinished() == ["reef"]
    await manifest.revision_published(record.key, 5)
    assert await unfinished() == []


async def test_revisions_and_positions_never_decrease_or_run_ahead(manifest: Manifest) -> None:
    """Late values are ignored; a revision or position that was never assigned can't be published."""
    record = await manifests.accepted(manifest, manifests.spec())
    await manifest.record_status(record.key, 5, b"{}")
    await manifest.record_status(record.key, 3, b"{}")
    await manifest.revision_published(record.key, 5)
    await manifest.revision_published(record.key, 4)
    found = await manifest.experiment("reef")
    assert found is not None
    assert (found.revision, found.published_revision) == (5, 5)
    with pytest.raises(errors.ManifestConflict, match="published_revision_was_composed"):
        await manifest.revision_published(record.key, 6)
    with pytest.raises(errors.ManifestConflict, match="published_seq_was_given"):
        await manifest.results_published(record.key, 1)
    with pytest.raises(errors.ManifestConflict):
        await manifest.record_status(record.key + 1, 1, b"{}")


async def test_experiments_are_listed_newest_first_in_pages(manifest: Manifest) -> None:
    """Pages can be filtered, and each continues where the last one ended."""
    for seq, group in enumerate(["a", "b", "a", "a"], start=1):
        spec = manifests.spec(f"e{seq}", group=group, name=f"Reef {seq}", tags=(group, "x"), created_ms=seq)
        record = await manifests.accepted(manifest, spec, seq)
        if seq == 3:
            await manifests.moved(manifest, record, ExperimentState.CANCELLED, at_ms=5)

    await manifest.record_status(4, 1, b'{"revision": 1}')
    await manifest.record_status(4, 2, b'{"revision": 2}')

    first = await manifest.statuses(limit=2)
    assert first == [ListedExperiment(4, "e4", b'{"revision": 2}'), ListedExperiment(3, "e3", None)]
    rest = await manifest.statuses(before_key=3)
    assert [listed.experiment_id for listed in rest] == ["e2", "e1"]
    for which, expected in (
        (Which(group="a", state=ExperimentState.ACCEPTED), ["e4", "e1"]),
        (Which(tag="b"), ["e2"]),
        (Which(tag="ab"), []),
        (Which(name="rEEF 1"), ["e1"]),
        (Which(name="%"), []),
        (Which(like="e"), ["e4", "e3", "e2", "e1"]),
        (Which(like="e3"), ["e3"]),
        (Which(like="Reef 2"), ["e2"]),
        (Which(like="Reef"), []),
        (Which(like="E"), []),
        (Which(since_ms=3), ["e4", "e3"]),
    ):
        assert [listed.experiment_id for listed in await manifest.statuses(which)] == expected, which
    await manifest.record_submission(manifests.submission(9, "e9", publisher="ada"), manifests.spec("e9"))
    assert (await manifest.statuses(limit=1))[0].publisher == "ada"
    assert await manifest.status(4) == b'{"revision": 2}'
    assert await manifest.status(1) is None


async def test_parked_events_are_kept_once_oldest_first_and_capped(manifest: Manifest) -> None:
    """A redelivered event is parked once; above the limit the oldest are dropped; used and expired ones are gone."""
    events = [ParkedEvent("sim-1", "sim.run_completed", seq, 100 + seq, b"\x00\xff") for seq in range(5)]
    assert await manifest.park(events, keep=10) == 0
    assert await manifest.park(events[:2], keep=10) == 0
    assert await manifest.parked() == events
    late = replace(events[0], simulation_id="sim-2", seq=9, received_ms=109)
    assert await manifest.park([late], keep=4) == 2
    assert await manifest.parked() == [*events[2:], late]
    await manifest.unpark([events[3], events[0]])
    assert await manifest.expire_parked(103) == 1
    assert await manifest.parked() == [events[4], late]
    assert await manifest.park([], keep=0) == 0


async def test_large_parked_events_are_capped_by_their_bytes(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The oldest are dropped; small events are not added up."""
    monkeypatch.setattr(store, "MAX_PARKED_BYTES", 1000)
    events = [ParkedEvent(f"sim-{seq}", "sim.run_started", seq, 100, b"x" * 300) for seq in range(5)]
    assert await manifest.park(events, keep=10) == 2
    assert await manifest.parked() == events[2:]
    small = [replace(one, subject="small", data=b"x" * 100) for one in events]
    assert await manifest.park(small, keep=10) == 0
    large = replace(events[0], subject="large", data=b"x" * 900)
    assert await manifest.park([large], keep=10) == 7
    assert await manifest.parked() == [small[4], large]
    most = replace(events[0], subject="largest", data=b"x" * 1000)
    assert await manifest.park([most], keep=10) == 2
    assert await manifest.parked() == [most]


async def test_parked_events_are_found_by_their_experiment(manifest: Manifest) -> None:
    """Each event of a run of the experiment is found once, oldest first."""
    assert not await manifest.any_parked()
    names = ["reef-p1-p000000-r000-a1", "reef-p000001-r000-a1", "reefs-p000000-r000-a1", "reef", "ree-p000000-r000-a1"]
    events = [ParkedEvent(name, "sim.run_started", seq, 100, b"{}") for seq, name in enumerate(names)]
    await manifest.park(events, keep=10)
    assert await manifest.any_parked()
    assert await manifest.parked_of(["reef", "reef-p1"]) == events[:2]
    assert await manifest.parked_of(["reefs"]) == [events[2]]
    assert await manifest.parked_of(["nobody's"]) == await manifest.parked_of([]) == []


async def test_the_last_value_of_a_fact_is_remembered(manifest: Manifest) -> None:
    """A fact replaces the one of the same name."""
    assert await manifest.remembered("stream EMS_PLANS") is None
    await manifest.remember("stream EMS_PLANS", "1:2")
    await manifest.remember("stream EMS_PLANS", "1:3")
    assert await manifest.remembered("stream EMS_PLANS") == "1:3"
