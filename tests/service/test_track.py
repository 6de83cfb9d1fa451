"""Run events: in any order, and delivered any number of times, they end each run once."""

from collections import deque
from pathlib import Path
from unittest.mock import patch

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from ems_worker.core.lifecycle.transitions import RunState
from ems_worker.core.wire import Message
from ems_worker.pb.fes.common.events.generic_event_request_pb2 import GenericEventRequest
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2 as pb
from ems_worker.service.reach import Claimed
from tests.support import wait
from tests.support.desk import Desk, background, plan


def wrapped(kind: str, payload: bytes, simulation_id: str = "") -> bytes:
    event = GenericEventRequest(
        event_id="e", event_type_key=f"sim.run_{kind}.v1", event_payload=payload, simulation_id=simulation_id
    )
    return event.SerializeToString()


async def test_events_may_be_json_or_protobuf(tmp_path: Path) -> None:
    """Both encodings have the same effect."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=2))
        first, other = await desk.launch(live)
        started = {"started_at": "2026-01-01T00:00:01Z", "model_version": "fish-2"}
        await desk.hear("started", first, **started)
        await desk.hear(
            "completed",
            first,
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
        from_json, from_protobuf = (await desk.row(first)).run, (await desk.row(other)).run
        for name in ("state", "started_ms", "finished_ms", "metrics", "artifacts", "model_version"):
            assert getattr(from_json, name) == getattr(from_protobuf, name)
        assert (from_json.state, from_json.metrics) == (RunState.COMPLETED, {"population": 4.5})
        assert (from_json.started_ms, from_json.finished_ms) == (1767225601000, 1767225609500)
        assert len(desk.broker.acked) == 5  # the plan, and four events


async def test_duplicates_change_nothing_and_are_acknowledged(tmp_path: Path) -> None:
    """This includes duplicates in the same batch."""
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
    """The late reply doesn't change the run."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        claimed = await desk.claim(live, 1)
        await desk.hear("completed", "reef-p000000-r000-a1", metrics={"population": 1})
        desk.orchestrator.answers["reef-p000000-r000-a1"] = deque(["OK"])
        await desk.submitter.submit([Claimed.of(live, run, point) for run, point in claimed])
        assert (await desk.row("reef-p000000-r000-a1")).run.state is RunState.COMPLETED


async def test_started_may_follow_completed(tmp_path: Path) -> None:
    """The event counts as late, not as a contradiction."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name)
        await desk.hear("started", name)
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert desk.broker.dead == []
        assert desk.count("ems_events_total", verdict="late") == 1


async def test_the_first_end_of_a_run_stands_and_a_contradicting_event_becomes_a_dead_letter(tmp_path: Path) -> None:
    """The letter names the run, and the event is counted."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        await desk.hear("completed", name, metrics={"population": 1})
        await desk.hear("failed", name, error_kind="simulation")
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        [(kind, seq, reason)] = desk.broker.dead
        assert kind == "event"
        assert name in reason
        assert desk.broker.acked.count(seq) == 1
        assert desk.count("ems_events_total", verdict="contradiction") == 1
        assert desk.count("ems_dead_letters_total", kind="event") == 1


async def test_a_malformed_event_becomes_a_dead_letter_without_delaying_its_batch(tmp_path: Path) -> None:
    """The valid event of the batch is applied."""
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


async def test_the_last_token_of_a_subject_may_be_anything(tmp_path: Path) -> None:
    """It may even be invalid text, which the client library escapes. This holds for events and for plans."""
    async with Desk.open(tmp_path) as desk:
        await desk.intake.take(desk.message("ems.experiment.submit.\\xff", plan(points=1)))
        live = desk.ledger.live("reef")
        assert live is not None
        await desk.expander.expand(live)
        [name] = await desk.launch(live)
        await desk.tracker.track([desk.message("sim.run_completed.\\xff", {"simulation_id": name})])
        assert (await desk.row(name)).run.state is RunState.COMPLETED
        assert desk.broker.dead == []


async def test_an_event_with_too_many_metrics_becomes_a_dead_letter(tmp_path: Path) -> None:
    """The run keeps the metrics that it had, and gets none of the event's."""
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


async def test_a_batch_that_cannot_be_recorded_is_not_acknowledged(tmp_path: Path) -> None:
    """It will be delivered again."""
    async with Desk.open(tmp_path) as desk:
        live = await desk.begin(plan(points=1))
        [name] = await desk.launch(live)
        before = list(desk.broker.acked)

        async def fail(*_: object) -> None:
            raise OSError("no space")

        with patch.object(desk.manifest, "save", fail), pytest.raises(OSError, match="no space"):
            await desk.hear("completed", name)
        assert desk.broker.acked == before


async def test_the_tracker_applies_batch_after_batch(tmp_path: Path) -> None:
    """An empty batch doesn't end it."""
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
