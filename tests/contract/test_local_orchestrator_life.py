"""The runs of the local orchestrator survive its crashes and outages of the broker."""

import asyncio
import dataclasses
import functools
import os
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest

from ems_worker.local.orchestrator import command, events, model, simulation
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wait
from tests.support.shell_simulations import RESULT, alive, child, recorded, starts, until_released


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module; tests that stop the broker start their own."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator for this test alone; its simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        yield orchestrator


async def test_a_crash_neither_loses_nor_repeats_a_run(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """After SIGKILL, running simulations are adopted, those that ended meanwhile are finished, queued ones start."""
    await fresh.begin("crash-ends", recorded(tmp_path, f"until [ -e {tmp_path}/end ]; do sleep 0.01; done; {RESULT}"))
    await fresh.begin("crash-runs", until_released(tmp_path))
    await fresh.begin("crash-queued", recorded(tmp_path, RESULT))
    await wait.until(lambda: len(starts(tmp_path)) == 2, what="both slots to be taken")
    await fresh.reaches("crash-runs", pb.SIMULATION_STATE_RUNNING)
    running = set(alive(tmp_path))

    await fresh.kill()
    (tmp_path / "end").touch()
    exit_file = fresh.data_dir / "runs" / "crash-ends" / "exit"
    await wait.until(exit_file.exists, what="the simulation to end without its orchestrator")
    await fresh.restart()

    assert (await fresh.status("crash-runs")).state == pb.SIMULATION_STATE_RUNNING
    assert running.intersection(alive(tmp_path))
    (tmp_path / "go").touch()
    for name in ("crash-ends", "crash-runs", "crash-queued"):
        assert (await fresh.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
        stored = await local_orchestrator.published(broker.url, name, "completed")
        assert [event.subject for event in stored] == ["sim.run_started", "sim.run_completed"]
    assert sorted(starts(tmp_path)) == ["crash-ends", "crash-queued", "crash-runs"]


@pytest.mark.parametrize(("runs", "crashes"), [(15, 2), pytest.param(40, 5, marks=pytest.mark.long)])
async def test_crashes_at_any_moment_start_every_run_once(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path, runs: int, crashes: int
) -> None:
    """Killed again and again while runs start and end, it starts each run exactly once and publishes each end."""

    def started(count: int) -> bool:
        return len(starts(tmp_path)) >= count

    names = [f"often-{number:02d}" for number in range(runs)]
    commands = [local_orchestrator.command(name, recorded(tmp_path, RESULT)) for name in names]
    await fresh.calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
    for crash in range(1, crashes + 1):
        await wait.until(functools.partial(started, 5 * crash), what="more runs to start")
        await fresh.restart(crash=True)
    for name in names:
        assert (await fresh.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
    assert sorted(starts(tmp_path)) == names
    expected = sorted(f"{name}:{what}" for name in names for what in ("started", "completed"))

    async def published() -> list[str]:
        stored = [event.message_id for event in await local_orchestrator.events(broker.url)]
        often = sorted(message_id for message_id in stored if message_id.startswith("often-"))
        return often if len(often) >= len(expected) else []

    assert await wait.until(published, what="all events") == expected


async def test_no_process_outlives_an_adopted_run(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """Children that an adopted simulation leaves behind are killed before the run counts as ended."""
    await fresh.begin("adopted", f"{child(tmp_path)} {until_released(tmp_path)}")
    await wait.until(lambda: starts(tmp_path) and len(alive(tmp_path)) == 2, what="the child to start")
    await fresh.reaches("adopted", pb.SIMULATION_STATE_RUNNING)
    await fresh.restart(crash=True)
    (tmp_path / "go").touch()
    assert (await fresh.ends("adopted")).state == pb.SIMULATION_STATE_COMPLETED
    assert alive(tmp_path) == []


async def test_a_crash_during_stop_does_not_save_a_run(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """A simulation that outlives a STOP and the orchestrator gets SIGTERM again after the restart."""
    survives_one = (
        f"trap 'echo >> {tmp_path}/terms' TERM; until [ $(wc -l < {tmp_path}/terms) = 2 ]; do sleep 0.01; done"
    )
    (tmp_path / "terms").touch()
    await fresh.begin("stubborn", recorded(tmp_path, survives_one))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await fresh.reaches("stubborn", pb.SIMULATION_STATE_RUNNING)
    stop = pb.ControlSimulationCommand(simulation_id="stubborn", action=pb.CONTROL_ACTION_STOP)
    stopping = fresh.calls.ControlSimulation(stop, timeout=60)
    await wait.until((tmp_path / "terms").read_text, what="the first SIGTERM")
    await fresh.restart(crash=True)
    stopping.cancel()
    assert (await fresh.ends("stubborn")).error_kind == "stopped"
    assert alive(tmp_path) == []


@pytest.mark.parametrize("state", [model.State.QUEUED, model.State.STARTING])
async def test_a_run_that_was_stopped_before_a_crash_is_not_started(
    broker: servers.NatsServer, tmp_path: Path, state: model.State
) -> None:
    """A run whose STOP was recorded before its process started ends as stopped after the restart."""
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path)
    orchestrator.data_dir.mkdir()
    store = Store(orchestrator.data_dir / "orchestrator.db")
    await store.open()
    await store.admit([model.Order("stopped-early", recorded(tmp_path, RESULT).encode(), "sha", 1, "exp")])
    if state is model.State.STARTING:
        assert await store.begin("stopped-early", host="n17", slot="1") is not None
    assert await store.request_stop("stopped-early")
    await store.close()
    async with orchestrator:
        assert (await orchestrator.ends("stopped-early")).error_kind == "stopped"
    assert starts(tmp_path) == []


async def test_processes_that_vanish_are_an_infrastructure_failure(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A run whose processes are gone after a restart, without an exit code, has failed and may be retried."""
    await fresh.begin("vanished", until_released(tmp_path))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await fresh.reaches("vanished", pb.SIMULATION_STATE_RUNNING)
    await fresh.kill()
    claim = simulation.Simulation(fresh.data_dir / "runs" / "vanished").claim()
    assert claim is not None
    os.killpg(claim.pid, 9)
    await fresh.restart()
    status = await fresh.ends("vanished")
    assert (status.error_kind, status.HasField("retryable")) == ("infrastructure", False)
    assert starts(tmp_path) == ["vanished"]


async def test_two_wrappers_start_one_simulation(tmp_path: Path) -> None:
    """If a crash leads to several wrappers for a run, one of them starts it; the others do nothing."""
    order = model.Order("raced", recorded(tmp_path, f"sleep 0.2; {RESULT}").encode(), "sha", 1, "exp")
    rivals = [simulation.Simulation(tmp_path / "raced") for _ in range(5)]
    for rival in rivals:
        rival.launch(command.Command.parse(local_orchestrator.SHELL), order)
    for rival in rivals:
        await rival.ended()
        assert rival.end().metrics == {"population": 12.0}
    assert starts(tmp_path) == ["raced"]


async def test_a_run_that_the_orchestrator_has_claimed_is_not_started(tmp_path: Path) -> None:
    """A claim of the orchestrator itself keeps a late wrapper from starting the simulation."""
    order = model.Order("forbidden", recorded(tmp_path, RESULT).encode(), "sha", 1, "exp")
    run = simulation.Simulation(tmp_path / "forbidden")
    assert run.forbid()
    assert not run.forbid()
    run.launch(command.Command.parse(local_orchestrator.SHELL), order)
    await run.ended()
    assert starts(tmp_path) == []
    assert run.exit_code() is None


async def test_events_outlive_the_broker_and_the_orchestrator(tmp_path: Path) -> None:
    """Events from an outage of the broker are published, in order, when broker and orchestrator are back."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
            await broker.kill()
            await orchestrator.begin("outage", RESULT)
            await orchestrator.ends("outage")
            await orchestrator.restart(crash=True)
            await broker.start()
            stored = await local_orchestrator.published(broker.url, "outage", "completed")
            assert [event.subject for event in stored] == ["sim.run_started", "sim.run_completed"]
            # The same if only the broker is restarted.
            await broker.kill()
            await orchestrator.begin("again", RESULT)
            await orchestrator.ends("again")
            await broker.start()
            await local_orchestrator.published(broker.url, "again", "completed")


async def test_the_orchestrator_can_start_before_its_broker(tmp_path: Path) -> None:
    """It accepts runs without a broker, and publishes their events when the broker has started."""
    broker = servers.NatsServer(tmp_path / "nats")
    await broker.start()
    await broker.stop()
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        await orchestrator.begin("early", RESULT)
        await orchestrator.ends("early")
        async with broker:
            await local_orchestrator.published(broker.url, "early", "completed")


async def test_an_existing_stream_with_the_subjects_is_used(tmp_path: Path) -> None:
    """If a stream of the operator has the subjects, events go there and no other stream is created."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        client = await nats.connect(broker.url)
        stream = client.jetstream()
        await stream.add_stream(name="OPERATORS", subjects=["sim.>"])
        async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
            await orchestrator.begin("operators", RESULT)
            await orchestrator.ends("operators")

            async def has_both() -> bool:
                return (await stream.stream_info("OPERATORS")).state.messages == 2

            await wait.until(has_both, what="both events in the stream of the operator")
        assert [info.config.name for info in await stream.streams_info()] == ["OPERATORS"]
        await client.close()


async def test_the_stream_is_recreated_if_the_broker_loses_its_data(tmp_path: Path) -> None:
    """An orchestrator that keeps running creates the stream again and publishes the next events to it."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
            await orchestrator.begin("before", RESULT)
            await local_orchestrator.published(broker.url, "before", "completed")
            await broker.stop()
            shutil.rmtree(tmp_path / "nats" / "jetstream")
            await broker.start()
            await orchestrator.begin("after", RESULT)
            stored = await local_orchestrator.published(broker.url, "after", "completed")
    assert [event.subject for event in stored] == ["sim.run_started", "sim.run_completed"]


async def test_runs_are_forgotten_after_thirty_days(broker: servers.NatsServer, tmp_path: Path) -> None:
    """At its start the orchestrator deletes runs that ended more than thirty days ago, and keeps more recent ones."""
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path)
    orchestrator.data_dir.mkdir()
    store = Store(orchestrator.data_dir / "orchestrator.db")
    await store.open()
    now, day = time.time_ns(), 24 * 3600 * 10**9
    for name, finished_ns in (("old", now - 31 * day), ("recent", now - 29 * day)):
        await store.admit([model.Order(name, b"", "sha", 1, "exp")])
        run = await store.begin(name, host="n17", slot="1")
        assert run is not None
        end = model.RunEnd()
        ended = dataclasses.replace(run, state=end.state, end=end, started_ns=1, finished_ns=finished_ns)
        await store.end(ended, events.ended(ended))
    await store.published([stored.number for stored in await store.unpublished(10)])
    await store.close()
    async with orchestrator:
        await orchestrator.reaches("old", pb.SIMULATION_STATE_NOT_FOUND)
        assert (await orchestrator.status("recent")).state == pb.SIMULATION_STATE_COMPLETED
