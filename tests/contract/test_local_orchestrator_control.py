"""The local orchestrator stops, pauses and resumes runs, and refuses what is impossible."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers, wait
from tests.support.shell_simulations import RESULT, alive, child, recorded, starts, until_released


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def shared(
    broker: servers.NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[local_orchestrator.Orchestrator]:
    """One orchestrator for all tests of this module that need no state of their own."""
    orchestrator = local_orchestrator.Orchestrator(
        broker.url, tmp_path_factory.mktemp("shared"), shared=True, more=["--stop-grace-seconds", "0.5"]
    )
    yield orchestrator
    asyncio.run(orchestrator.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator with a channel for this test; its simulations are shell scripts."""
    async with shared:
        yield shared


async def test_stop_ends_a_run_and_all_its_processes(
    orchestrator: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """STOP replies FAILED when all processes of the run are gone, even children that ignore SIGTERM."""
    stubborn = f"trap '' TERM; {child(tmp_path)} sleep 60"
    await orchestrator.begin("stopped", recorded(tmp_path, stubborn))
    await wait.until(
        lambda: starts(tmp_path) and len(alive(tmp_path)) == 2, what="the simulation and its child to start"
    )
    assert await orchestrator.control("stopped", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
    assert alive(tmp_path) == []
    assert (await orchestrator.status("stopped")).error_kind == "stopped"
    event = (await local_orchestrator.published(broker.url, "stopped", "failed"))[-1].payload
    assert isinstance(event, run_events_pb2.RunFailed)
    assert event.error_kind == run_events_pb2.ERROR_KIND_STOPPED
    assert await orchestrator.control("stopped", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED


async def test_a_stopped_simulation_has_time_to_clean_up(broker: servers.NatsServer, tmp_path: Path) -> None:
    """After SIGTERM a simulation may run until the end of the grace period."""
    cleanup = f"trap 'sleep 0.2; touch {tmp_path}/cleaned; exit' TERM; while :; do sleep 0.01; done"
    more = ["--stop-grace-seconds", "600"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        await orchestrator.begin("cleaning", recorded(tmp_path, cleanup))
        await wait.until(lambda: starts(tmp_path), what="the simulation to start")
        await orchestrator.reaches("cleaning", pb.SIMULATION_STATE_RUNNING)
        assert await orchestrator.control("cleaning", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
    assert (tmp_path / "cleaned").exists()


async def test_no_process_outlives_its_run(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """Children that a simulation leaves behind are killed before the run counts as ended."""
    await orchestrator.begin("parent", f"{child(tmp_path)} {until_released(tmp_path)}")
    await wait.until(lambda: starts(tmp_path) and len(alive(tmp_path)) == 2, what="the child to start")
    (tmp_path / "go").touch()
    assert (await orchestrator.ends("parent")).state == pb.SIMULATION_STATE_COMPLETED
    # A killed process takes a moment to disappear.
    await wait.until(lambda: not alive(tmp_path), what="the child to be gone")


async def test_stop_of_a_queued_run_starts_nothing(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A run in the queue ends as stopped, is never started, and never occupies a slot."""
    for name in ("first", "second", "queued"):
        await orchestrator.begin(name, until_released(tmp_path))
    assert (await orchestrator.status("queued")).state == pb.SIMULATION_STATE_QUEUED
    assert await orchestrator.control("queued", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
    (tmp_path / "go").touch()
    for name in ("first", "second"):
        assert (await orchestrator.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
    assert sorted(starts(tmp_path)) == ["first", "second"]
    async for capacity in orchestrator.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=30):
        if (capacity.in_use, capacity.queued) == (0, 0):
            break


async def test_stop_of_an_ended_run_changes_nothing(orchestrator: local_orchestrator.Orchestrator) -> None:
    """A completed run stays completed."""
    await orchestrator.begin("done", RESULT)
    await orchestrator.ends("done")
    assert await orchestrator.control("done", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_COMPLETED


async def test_pause_suspends_a_run_until_resume(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """The processes of a paused run are suspended, a second PAUSE changes nothing, and RESUME lets it complete."""
    await orchestrator.begin("paused", until_released(tmp_path))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await orchestrator.reaches("paused", pb.SIMULATION_STATE_RUNNING)
    for _ in range(2):
        assert await orchestrator.control("paused", pb.CONTROL_ACTION_PAUSE) == pb.SIMULATION_STATE_PAUSED
    [pid] = alive(tmp_path)
    # State D is that of a shell that waits for a child which was suspended before its exec.
    await wait.until(
        lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "TD", what="the suspension"
    )
    (tmp_path / "go").touch()
    assert (await orchestrator.status("paused")).state == pb.SIMULATION_STATE_PAUSED
    await orchestrator.control("paused", pb.CONTROL_ACTION_RESUME)
    assert (await orchestrator.ends("paused")).state == pb.SIMULATION_STATE_COMPLETED


async def test_a_paused_run_can_be_stopped(broker: servers.NatsServer, tmp_path: Path) -> None:
    """STOP resumes suspended processes so that they end by SIGTERM: it need not wait ten minutes for SIGKILL."""
    more = ["--stop-grace-seconds", "600"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        await orchestrator.begin("paused", until_released(tmp_path))
        await wait.until(lambda: starts(tmp_path), what="the simulation to start")
        await orchestrator.reaches("paused", pb.SIMULATION_STATE_RUNNING)
        await orchestrator.control("paused", pb.CONTROL_ACTION_PAUSE)
        assert await orchestrator.control("paused", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
        assert alive(tmp_path) == []


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (pb.CONTROL_ACTION_STEP, grpc.StatusCode.UNIMPLEMENTED),
        (pb.CONTROL_ACTION_RESET, grpc.StatusCode.UNIMPLEMENTED),
        (pb.CONTROL_ACTION_UNSPECIFIED, grpc.StatusCode.INVALID_ARGUMENT),
        (pb.CONTROL_ACTION_PAUSE, grpc.StatusCode.FAILED_PRECONDITION),
        (pb.CONTROL_ACTION_RESUME, grpc.StatusCode.FAILED_PRECONDITION),
    ],
)
async def test_an_impossible_action_is_refused(
    orchestrator: local_orchestrator.Orchestrator, action: pb.ControlAction.ValueType, code: grpc.StatusCode
) -> None:
    """STEP and RESET are unimplemented, and PAUSE and RESUME of an ended run fail; the status code differs."""
    await orchestrator.begin("ended", RESULT)
    await orchestrator.ends("ended")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await orchestrator.control("ended", action)
    assert refused.value.code() == code


async def test_control_of_an_unknown_run_is_not_found(orchestrator: local_orchestrator.Orchestrator) -> None:
    """STOP of an unknown id is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await orchestrator.control("unknown", pb.CONTROL_ACTION_STOP)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND
