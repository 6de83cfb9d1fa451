"""An orderly shutdown of the local orchestrator is no failure of a run: the next start starts the run again."""

import asyncio
import functools
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.local.orchestrator import model
from ems_worker.local.orchestrator.store import Store
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wait
from tests.support.shell_simulations import RESULT, alive, child, recorded, starts, until_released


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator for this test alone, with two slots; its simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        yield orchestrator


async def test_interrupted_runs_start_again(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """After three shutdowns a run has no failure; each start has an empty directory, and queued runs come later."""

    def started(count: int) -> bool:
        return len(starts(tmp_path)) == count

    leaves_files = f"{child(tmp_path)} ls $SIMULATION_OUTPUT_DIR >> {tmp_path}/seen; touch $SIMULATION_OUTPUT_DIR/left;"
    await fresh.begin("down-one", f"{leaves_files} {until_released(tmp_path)}")
    await fresh.begin("down-two", until_released(tmp_path))
    await fresh.begin("down-queued", until_released(tmp_path))
    for evening in range(1, 4):
        await wait.until(functools.partial(started, 2 * evening), what="both slots to be taken")
        await fresh.stop(grace=10)
        assert fresh.exit_code == 0, fresh.last_words()
        assert alive(tmp_path) == []
        await fresh.restart()
    await wait.until(functools.partial(started, 8), what="the last start")
    (tmp_path / "go").touch()
    for name in ("down-one", "down-two", "down-queued"):
        assert (await fresh.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
    assert starts(tmp_path).count("down-queued") == 1
    assert (tmp_path / "seen").read_text() == ""
    stored = await local_orchestrator.published(broker.url, "down-one", "completed")
    numbers = ("started", "started:2", "started:3", "started:4", "completed")
    assert [event.message_id for event in stored] == [f"down-one:{number}" for number in numbers]


async def test_a_shutdown_keeps_what_has_ended(fresh: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """A run that has ended isn't started again, and its files stay."""
    await fresh.begin("ended", recorded(tmp_path, f"touch $SIMULATION_OUTPUT_DIR/kept; {RESULT}"))
    assert (await fresh.ends("ended")).state == pb.SIMULATION_STATE_COMPLETED
    await fresh.restart()
    assert (await fresh.status("ended")).state == pb.SIMULATION_STATE_COMPLETED
    assert starts(tmp_path) == ["ended"]
    assert (fresh.data_dir / "runs" / "ended" / "output" / "kept").exists()


async def test_no_run_is_accepted_during_a_shutdown(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Start calls are UNAVAILABLE, so that their callers send them again later."""
    stubborn = f"trap 'touch {tmp_path}/term' TERM; until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    more = ["--stop-grace-seconds", "600"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        await orchestrator.begin("stubborn", recorded(tmp_path, stubborn))
        await wait.until(lambda: starts(tmp_path), what="the simulation to start")
        await orchestrator.reaches("stubborn", pb.SIMULATION_STATE_RUNNING)
        stopping = asyncio.create_task(orchestrator.stop(grace=30))
        await wait.until((tmp_path / "term").exists, what="the shutdown")
        batch = pb.StartSimulationsRequest(commands=[local_orchestrator.command("late", RESULT)])
        for call in (orchestrator.begin("late", RESULT), orchestrator.calls.StartSimulations(batch, timeout=10)):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() == grpc.StatusCode.UNAVAILABLE
        (tmp_path / "go").touch()
        await stopping
        await orchestrator.restart()
        assert (await orchestrator.status("late")).state == pb.SIMULATION_STATE_NOT_FOUND


async def test_a_paused_run_waits_for_resume_after_a_shutdown(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """It has no slot and isn't started before RESUME."""
    await fresh.begin("paused", until_released(tmp_path))
    await fresh.reaches("paused", pb.SIMULATION_STATE_RUNNING)
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await fresh.control("paused", pb.CONTROL_ACTION_PAUSE)
    await fresh.restart()
    assert (await fresh.status("paused")).state == pb.SIMULATION_STATE_PAUSED
    (tmp_path / "go").touch()
    for name in ("other", "another"):
        await fresh.begin(name, recorded(tmp_path, RESULT))
        await fresh.ends(name)
    assert (await fresh.status("paused")).state == pb.SIMULATION_STATE_PAUSED
    assert sorted(starts(tmp_path)) == ["another", "other", "paused"]
    await fresh.control("paused", pb.CONTROL_ACTION_RESUME)
    assert (await fresh.ends("paused")).state == pb.SIMULATION_STATE_COMPLETED
    assert starts(tmp_path).count("paused") == 2


async def test_a_run_that_is_being_stopped_is_not_started_again(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """STOP beats the shutdown: the run ends as stopped."""
    stubborn = f"trap 'touch {tmp_path}/term' TERM; while :; do sleep 0.01; done"
    await fresh.begin("stopped", recorded(tmp_path, stubborn))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await fresh.reaches("stopped", pb.SIMULATION_STATE_RUNNING)
    stop = pb.ControlSimulationCommand(simulation_id="stopped", action=pb.CONTROL_ACTION_STOP)
    stopping = fresh.calls.ControlSimulation(stop, timeout=60)
    await wait.until((tmp_path / "term").exists, what="the first SIGTERM")
    await fresh.stop(grace=10)
    stopping.cancel()
    await fresh.restart()
    assert (await fresh.ends("stopped")).error_kind == "stopped"
    assert starts(tmp_path) == ["stopped"]


async def test_a_kill_during_a_shutdown_loses_no_run(broker: servers.NatsServer, tmp_path: Path) -> None:
    """If the orchestrator is killed before its simulations have ended, the next one ends them and starts them again."""
    stubborn = f"trap 'touch {tmp_path}/term' TERM; {until_released(tmp_path)}"
    more = ["--stop-grace-seconds", "600"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        await orchestrator.begin("killed", stubborn)
        await wait.until(lambda: starts(tmp_path), what="the simulation to start")
        await orchestrator.reaches("killed", pb.SIMULATION_STATE_RUNNING)
        orchestrator.signal(signal.SIGTERM)
        await wait.until((tmp_path / "term").exists, what="the shutdown")
        await orchestrator.kill()
        [first] = alive(tmp_path)
        await orchestrator.restart()
        await wait.until(lambda: len(starts(tmp_path)) == 2, what="the second start")
        assert first not in alive(tmp_path)
        (tmp_path / "go").touch()
        assert (await orchestrator.ends("killed")).state == pb.SIMULATION_STATE_COMPLETED


@pytest.mark.parametrize("claimed", [False, True])
async def test_an_interrupted_start_is_repeated(broker: servers.NatsServer, tmp_path: Path, claimed: bool) -> None:
    """A run that was interrupted while its process was being spawned starts, whether or not a wrapper claimed it."""
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path)
    orchestrator.data_dir.mkdir()
    store = Store(orchestrator.data_dir / "orchestrator.db")
    await store.open()
    script = recorded(tmp_path, RESULT).encode()
    await store.admit([model.Order("spawning", script, "sha", 1, "exp")])
    await store.begin("spawning", host="n17", slot="1")
    await store.interrupt(["spawning"])
    await store.close()
    directory = orchestrator.data_dir / "runs" / "spawning"
    if claimed:
        directory.mkdir(parents=True)
        (directory / "claim").symlink_to("4194305 gone")
        (directory / "exit").write_text("143")
    async with orchestrator:
        assert (await orchestrator.ends("spawning")).state == pb.SIMULATION_STATE_COMPLETED
        await wait.until(
            lambda: [path.name for path in directory.parent.iterdir()] == ["spawning"], what="the old files to be gone"
        )
    assert starts(tmp_path) == ["spawning"]
