"""Events in: whatever comes, in whatever order and however often, each run ends once."""

from collections import deque
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import structlog.testing
from google.protobuf.timestamp_pb2 import Timestamp

from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Message
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2 as pb
from tests.support import wait
from tests.support.desk import Desk, background, plan


def wrapped(kind: str, payload: bytes, simulation_id: str = "") -> bytes:
    event = GenericEventRequest(
        event_id="e", event_type_key=f"sim.run_{kind}.v1", event_payload=payload, simulation_id=simulation_id
    )
    return event.SerializeToString()


async def test_events_are_heard_in_both_encodings(tmp_path: Path) -> None:
    """JSON, and protobuf around protobuf, say the same."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        one, other = await desk.launch(live)
        started = {"started_at": "2026-01-01T00:00:01Z", "model_version": "fish-2"}
        await desk.hear("started", one, **started)
        await desk.hear(
            "completed",
            one,
            metrics={"population": 4.5},
            artifacts={"series": "file:///a.csv"},
            finished_at="2026-01-01T00:00:09.500Z",
        )
        begun = pb.RunStarted(simulation_id=other, started_at=Timestamp(seconds=1767225601), model_version="fish-2")
        done = pb.RunCompleted(
            simulation_id=other,
            metrics={"population": 4.5},
            artifacts={"series": "file:///a.csv"},
            finished_at=Timestamp(seconds=1767225609, nanos=500_000_000),
        )
        await desk.tracker.track(
            [
                desk.message("sim.run_started", wrapped("started", begun.SerializeToString(), other)),
                desk.message("sim.run_completed", wrapped("completed", done.SerializeToString())),
            ]
        )
        first, second = (await desk.row(one)).run, (await desk.row(other)).run
        for name in ("state", "started_ms", "finished_ms", "metrics", "artifacts", "model_version"):
            assert getattr(first, name) == getattr(second, name)
        assert (first.state, first.metrics) == (RunState.COMPLETED, {"population": 4.5})
        assert (first.started_ms, first.finished_ms) == (1767225601000, 1767225609500)
        assert len(desk.broker.acked) == 5  # the plan, and four events


async def test_duplicates_change_nothing_and_are_acknowledged(tmp_path: Path) -> None:
    """Also within one batch."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        event = {"simulation_id": name, "metrics": {"population": 1}}
        batch = [desk.message("sim.run_completed", event) for _ in range(3)]
        await desk.tracker.track(batch)
        before = await desk.row(name)
        await desk.tracker.track(batch)
        assert await desk.row(name) == before
        assert before.run.job_revision == 1
        assert desk.count("ems_events_total", verdict="duplicate") == 5
        assert len(desk.broker.acked) == 7
        assert desk.broker.dead == []


async def test_an_event_may_precede_the_reply_to_its_start(tmp_path: Path) -> None:
    """The late reply changes nothing."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        claimed = await desk.ledger.claim(live.key, 1)
        await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 1})
        desk.orchestrator.answers["reef-p000000-r000-a1"] = deque(["OK"])
        await desk.submitter.submit([(live, run, point) for run, point in claimed])
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED


async def test_started_may_follow_completed(tmp_path: Path) -> None:
    """It is late, and no contradiction."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name)
        await desk.hear("started", name)
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert desk.broker.dead == []
        assert desk.count("ems_events_total", verdict="late") == 1


async def test_the_first_end_stands_and_another_is_recorded_apart(tmp_path: Path) -> None:
    """As a dead letter that says so, and counted."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        await desk.hear("failed", name, error_kind="simulation")
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        [(kind, _, reason)] = desk.broker.dead
        assert kind == "event"
        assert name in reason
        assert desk.count("ems_events_total", verdict="contradiction") == 1
        assert desk.count("ems_dead_letters_total", kind="event") == 1


async def test_a_malformed_event_does_not_hold_up_its_batch(tmp_path: Path) -> None:
    """It goes to the dead letters with the reason."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.tracker.track(
            [
                desk.message("sim.run_completed", b'{"simulation_id": '),
                desk.message("sim.run_completed", {"metrics": {}}),
                desk.message("sim.run_completed", {"simulation_id": name, "metrics": [1]}),
                desk.message("sim.run_completed", {"simulation_id": name}),
            ]
        )
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert len(desk.broker.dead) == 3
        assert desk.count("ems_events_total", verdict="unreadable") == 3
        assert len(desk.broker.acked) == 5


async def test_what_stands_after_an_events_kind_in_its_subject_is_anybodys(tmp_path: Path) -> None:
    """Also where it is no text: the broker's client has escapes for that. The same goes for a publisher's name."""
    async with Desk.open(tmp_path) as desk:
        await desk.intake.take(desk.message("ems.experiment.submit.\\xff", plan(points=1)))
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        [name] = await desk.launch(live)
        await desk.tracker.track([desk.message("sim.run_completed.\\xff", {"simulation_id": name})])
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert desk.broker.dead == []


async def test_events_of_unknown_runs_wait_and_are_applied_once_their_run_is_known(tmp_path: Path) -> None:
    """Also after a restart; they are acknowledged as soon as they are in the manifest."""
    async with Desk.open(tmp_path) as desk:
        await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 8})
        await desk.hear("started", "somebody-elses")
        assert len(desk.broker.acked) == 2
        assert desk.count("ems_events_total", verdict="parked") == 2
        await desk.tracker.retry_parked(0)
        assert len(await desk.manifest.parked()) == 2
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert [one.simulation_id for one in await desk.manifest.parked()] == ["somebody-elses"]
        assert desk.tracker.parked


async def test_events_that_name_their_runs_in_the_wrong_case_are_said_once(tmp_path: Path) -> None:
    """With an example and the name that is meant: else they are parked, and dropped, without a word."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        names = await desk.launch(live)
        with structlog.testing.capture_logs() as lines:
            for name in names:
                await desk.hear("completed", name.upper(), metrics={"population": 8})
            await desk.hear("started", "SOMEBODY-ELSES-P000000-R000-A1")
        said = [line for line in lines if line["event"] == "event.other_case"]
        assert said == [
            {"event": "event.other_case", "log_level": "warning", "simulation_id": names[0].upper(), "meant": names[0]}
        ]
        assert desk.count("ems_events_total", verdict="parked") == 3


@pytest.mark.parametrize("name", ["reef-p{}-r000-a1", "reef-p000000-r{}-a1", "reef-p000000-r000-a{}"])
async def test_a_name_with_a_number_that_no_run_has_is_only_unknown(tmp_path: Path, name: str) -> None:
    """However long the number is: whoever publishes events chooses it."""
    async with Desk.open(tmp_path) as desk:
        await desk.begin(plan())
        await desk.hear("completed", name.format("9" * 30))
        assert [one.simulation_id for one in await desk.manifest.parked()] == [name.format("9" * 30)]


async def test_parked_events_are_dropped_after_their_time_and_over_their_number(tmp_path: Path) -> None:
    """The oldest first."""
    async with Desk.open(tmp_path, parked_events=2) as desk:
        for name in "abc":
            await desk.hear("started", name)
        assert [one.simulation_id for one in await desk.manifest.parked()] == ["b", "c"]
        desk.clock.seconds += 100
        await desk.tracker.retry_parked(desk.clock.now_ms() - 50_000)
        assert await desk.manifest.parked() == []
        assert not desk.tracker.parked


async def test_parked_events_are_looked_at_again_only_where_there_are_new_runs(tmp_path: Path) -> None:
    """All at the start; then those of experiments that got points or attempts. What others left there costs nothing."""
    async with Desk.open(tmp_path) as desk:
        for number in range(20):
            await desk.hear("started", f"foreign-p{number:06d}-r000-a1")
        await desk.hear("started", "of another system")
        await desk.begin(plan("other"))
        looked: list[str] = []
        decode = desk.tracker._decode

        def noted(subject: str, data: bytes) -> Any:
            found = decode(subject, data)
            looked.append(found[0])
            return found

        with patch.object(desk.tracker, "_decode", noted):
            await desk.tracker.retry_parked(0)
            assert len(looked) == 21
            # A point.
            await desk.hear("completed", "reef-p000001-r000-a1", metrics={"population": 8})
            # The next attempt.
            await desk.hear("started", "reef-p000000-r000-a2")
            looked.clear()
            await desk.tracker.retry_parked(0)
            assert looked == []
            live = await desk.begin(plan(points=2, limits={"max_attempts": 2}))
            await desk.tracker.retry_parked(0)
            assert looked == ["reef-p000001-r000-a1", "reef-p000000-r000-a2"]
            assert (await desk.row("reef-p000001-r000-a1")).run.state is RunState.COMPLETED
            looked.clear()
            await desk.tracker.retry_parked(0)
            assert looked == []
            await desk.launch(live)
            await desk.hear("failed", "reef-p000000-r000-a1", error_kind="infrastructure")
            looked.clear()
            await desk.tracker.retry_parked(0)
            assert looked == ["reef-p000000-r000-a2"]
            assert (await desk.row("reef-p000000-r000-a2")).run.state is RunState.RUNNING
            assert desk.tracker.parked


async def test_an_event_that_is_parked_while_its_run_comes_to_be_is_looked_at_again(tmp_path: Path) -> None:
    """Its run was not there when it was looked for, and is when it is parked: nothing new may come after that."""
    async with Desk.open(tmp_path) as desk:
        park = desk.manifest.park

        async def meanwhile(*given: Any) -> int:
            await desk.begin(plan(points=1))
            await desk.tracker.retry_parked(0)
            return await park(*given)

        with patch.object(desk.manifest, "park", meanwhile):
            await desk.hear("completed", "reef-p000000-r000-a1")
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert not desk.tracker.parked


async def test_an_event_that_is_parked_during_a_look_is_looked_at_next_time(tmp_path: Path) -> None:
    """The look that didn't see it must not say that nothing waits."""
    async with Desk.open(tmp_path) as desk:
        unpark = desk.manifest.unpark

        async def meanwhile(events: Any) -> None:
            await desk.hear("started", "reef-p000000-r000-a1")
            await unpark(events)

        with patch.object(desk.manifest, "unpark", meanwhile):
            await desk.tracker.retry_parked(0)
        assert desk.tracker.parked


async def test_metrics_beyond_what_is_kept_of_a_run_are_put_aside(tmp_path: Path) -> None:
    """As a whole, with the reason; the run keeps what it had."""
    async with Desk.open(tmp_path) as desk:
        [name] = await desk.launch(await desk.begin(plan(points=1)))
        for part in range(3):
            await desk.hear("metrics", name, metrics={f"step_{part}_{number}": 1 for number in range(500)})
        assert len((await desk.row(name)).run.metrics or {}) == 1000
        [(kind, seq, reason)] = desk.broker.dead
        assert kind == "event"
        assert reason == f"{name} would have more metrics than are kept for a run: 2,000, half of these before its end"
        assert seq in desk.broker.acked
        assert (
            desk.count("ems_events_total", verdict="excess") == desk.count("ems_dead_letters_total", kind="event") == 1
        )


async def test_a_contradiction_that_had_been_parked_changes_nothing(tmp_path: Path) -> None:
    """And doesn't wait any longer."""
    async with Desk.open(tmp_path) as desk:
        await desk.hear("completed", "reef-p000000-r000-a1")
        await desk.hear("failed", "reef-p000000-r000-a1")
        live = await desk.begin(plan(points=1))
        await desk.launch(live)
        await desk.tracker.retry_parked(0)
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED
        assert await desk.manifest.parked() == []
        assert desk.count("ems_events_total", verdict="contradiction") == 1


async def test_nothing_is_acknowledged_before_it_is_recorded(tmp_path: Path) -> None:
    """A batch that could not be recorded comes again."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        before = list(desk.broker.acked)

        async def fail(*_: object) -> None:
            raise OSError("no space")

        with patch.object(desk.manifest, "save", fail), pytest.raises(OSError, match="no space"):
            await desk.hear("completed", name)
        assert desk.broker.acked == before


async def test_the_tracker_takes_batch_after_batch(tmp_path: Path) -> None:
    """Each as one; an empty one is none."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=4))
        names = await desk.launch(live)
        batches: list[list[Message]] = [
            [],
            *([desk.message("sim.run_completed", {"simulation_id": name})] for name in names),
        ]
        async with background(desk.tracker.run()):
            for batch in batches:
                desk.broker.waiting.put_nowait(batch)
            await wait.until(lambda: live.recorded.ended == 4)
