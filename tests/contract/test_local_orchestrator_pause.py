"""PAUSE and RESUME of the local orchestrator: all processes of a run, runs in the queue, and crashes in between."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ems_worker.local.orchestrator import simulation
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wait
from tests.support.shell_simulations import RESULT, alive, child, recorded, starts, until_released

PAUSE, RESUME, STOP = pb.CONTROL_ACTION_PAUSE, pb.CONTROL_ACTION_RESUME, pb.CONTROL_ACTION_STOP
PAUSED, RUNNING, QUEUED = pb.SIMULATION_STATE_PAUSED, pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_QUEUED


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator with one slot; its simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, slots=1) as orchestrator:
        yield orchestrator


def suspended(directory: Path) -> bool:
    """Whether all recorded processes are suspended.

    State D is that of a shell that waits for a child which was suspended before its exec.
    """
    return all(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "TD" for pid in alive(directory))


async def begun(orchestrator: local_orchestrator.Orchestrator, name: str, script: str, directory: Path) -> None:
    """Starts a run and waits until its simulation runs."""
    await orchestrator.begin(name, script)
    await wait.until(lambda: name in starts(directory), what="the simulation to start")
    await orchestrator.reaches(name, RUNNING)


async def test_pause_suspends_the_children_too(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """Every process of the group is suspended until RESUME."""
    await begun(fresh, "parent", f"{child(tmp_path)} {until_released(tmp_path)}", tmp_path)
    await wait.until(lambda: len(alive(tmp_path)) == 2, what="the child to start")
    assert await fresh.control("parent", PAUSE) == PAUSED
    await wait.until(lambda: suspended(tmp_path), what="the suspension")
    assert len(alive(tmp_path)) == 2
    assert await fresh.control("parent", RESUME) == RUNNING
    await wait.until(lambda: not suspended(tmp_path), what="the processes to go on")
    (tmp_path / "go").touch()
    assert (await fresh.ends("parent")).state == pb.SIMULATION_STATE_COMPLETED


async def test_a_paused_run_in_the_queue_is_passed_over(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """PAUSE takes it out of the queue, RESUME puts it back at the end, and a restart changes neither."""
    await begun(fresh, "first", until_released(tmp_path), tmp_path)
    for name in ("held", "stopped", "second"):
        await fresh.begin(name, recorded(tmp_path, RESULT))
    for name in ("held", "stopped", "held"):
        assert await fresh.control(name, PAUSE) == PAUSED
    assert await fresh.control("stopped", STOP) == pb.SIMULATION_STATE_FAILED
    assert (await fresh.status("stopped")).error_kind == "stopped"
    (tmp_path / "go").touch()
    assert (await fresh.ends("second")).state == pb.SIMULATION_STATE_COMPLETED
    await fresh.restart(crash=True)
    assert (await fresh.status("held")).state == PAUSED
    assert starts(tmp_path) == ["first", "second"]
    assert await fresh.control("held", RESUME) in (QUEUED, RUNNING, pb.SIMULATION_STATE_COMPLETED)
    assert (await fresh.ends("held")).state == pb.SIMULATION_STATE_COMPLETED
    assert starts(tmp_path) == ["first", "second", "held"]


async def test_resume_of_a_run_that_is_not_paused_changes_nothing(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A running run stays running and a queued one queued."""
    await begun(fresh, "first", until_released(tmp_path), tmp_path)
    await fresh.begin("second", RESULT)
    assert await fresh.control("first", RESUME) == RUNNING
    assert await fresh.control("second", RESUME) == QUEUED
    (tmp_path / "go").touch()
    assert (await fresh.ends("second")).state == pb.SIMULATION_STATE_COMPLETED


async def test_a_paused_run_survives_a_crash(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """After SIGKILL of the orchestrator it is adopted, still suspended, and can be resumed."""
    await begun(fresh, "paused", until_released(tmp_path), tmp_path)
    await fresh.control("paused", PAUSE)
    await fresh.restart(crash=True)
    assert (await fresh.status("paused")).state == PAUSED
    assert suspended(tmp_path)
    (tmp_path / "go").touch()
    assert await fresh.control("paused", RESUME) == RUNNING
    assert (await fresh.ends("paused")).state == pb.SIMULATION_STATE_COMPLETED
    assert starts(tmp_path) == ["paused"]


@pytest.mark.parametrize("paused", [True, False])
async def test_a_crash_between_the_record_and_the_signal_is_repaired(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path, paused: bool
) -> None:
    """What is recorded is what holds: at its start, the orchestrator sends the signal again."""
    await begun(fresh, "torn", until_released(tmp_path), tmp_path)
    await fresh.kill()
    claim = simulation.Simulation(fresh.data_dir / "runs" / "torn").claim()
    assert claim is not None
    if paused:
        store = Store(fresh.data_dir / "orchestrator.db")
        await store.open()
        assert await store.pause("torn")
        await store.close()
    else:
        os.killpg(claim.pid, signal.SIGSTOP)
    await fresh.restart()
    await wait.until(lambda: suspended(tmp_path) is paused, what="the signal")
    (tmp_path / "go").touch()
    if paused:
        await fresh.control("torn", RESUME)
    assert (await fresh.ends("torn")).state == pb.SIMULATION_STATE_COMPLETED


async def test_a_paused_run_can_be_stopped_after_a_crash(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """STOP ends an adopted run that is suspended, with its children."""
    await begun(fresh, "paused", f"{child(tmp_path)} {until_released(tmp_path)}", tmp_path)
    await wait.until(lambda: len(alive(tmp_path)) == 2, what="the child to start")
    await fresh.control("paused", PAUSE)
    await fresh.restart(crash=True)
    assert await fresh.control("paused", STOP) == pb.SIMULATION_STATE_FAILED
    assert (await fresh.status("paused")).error_kind == "stopped"
    assert alive(tmp_path) == []


async def test_control_at_once_with_starts_and_ends_loses_no_run(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """PAUSE, RESUME and STOP at any moment of short runs leave each of them with one end, and no slot taken."""
    names = [f"raced-{number:02d}" for number in range(30)]
    commands = [local_orchestrator.command(name, RESULT) for name in names]
    await fresh.calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)

    async def tease(name: str, number: int) -> None:
        for action in (PAUSE, RESUME, PAUSE, STOP if number % 3 == 0 else RESUME):
            request = pb.ControlSimulationCommand(simulation_id=name, action=action)
            await asyncio.gather(fresh.calls.ControlSimulation(request, timeout=15), return_exceptions=True)

    await asyncio.gather(*(tease(name, number) for number, name in enumerate(names)))
    for name in names:
        # A PAUSE that was answered before the last RESUME may have been refused, but never the other way round.
        assert (await fresh.ends(name)).error_kind in ("", "stopped")
    async for capacity in fresh.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=30):
        if (capacity.in_use, capacity.queued) == (0, 0):
            break
