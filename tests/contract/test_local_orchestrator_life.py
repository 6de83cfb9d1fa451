"""What the local orchestrator's runs become when they are stopped, and when it, or the broker, goes away."""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import nats
import pytest

from ems_worker.local.orchestrator import model, simulation
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers, wait

RESULT = """echo '{"metrics": {"population": 12}}'"""


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module; tests that end it bring their own."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


@pytest.fixture(scope="module")
def shared(
    broker: servers.NatsServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[local_orchestrator.Orchestrator]:
    """One orchestrator for those tests of this module that leave it as they found it."""
    one = local_orchestrator.Orchestrator(
        broker.url, tmp_path_factory.mktemp("shared"), shared=True, more=["--stop-grace-seconds", "0.5"]
    )
    yield one
    asyncio.run(one.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator, whose simulations are shell scripts, with a channel for this test."""
    async with shared:
        yield shared


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator of this test alone, whose simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as one:
        yield one


def counted(directory: Path, then: str) -> str:
    """A script that tells of its start, and whose processes tell their ids, before it does something."""
    return f"echo $SIMULATION_ID >> {directory}/starts; echo $$ >> {directory}/pids; {then}"


def until_told(directory: Path) -> str:
    """A script that ends once the test makes a file."""
    return counted(directory, f"until [ -e {directory}/go ]; do sleep 0.01; done; {RESULT}")


def starts(directory: Path) -> list[str]:
    """The ids of all starts so far."""
    path = directory / "starts"
    return path.read_text().split() if path.exists() else []


def started_at_least(directory: Path, count: int) -> bool:
    """Whether so many starts were told."""
    return len(starts(directory)) >= count


def alive(directory: Path) -> list[int]:
    """The simulations' processes that are still there (a zombie isn't)."""
    found = []
    for pid in map(int, (directory / "pids").read_text().split()):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX":
                found.append(pid)
    return found


async def test_stop_ends_a_run_and_all_its_processes(
    orchestrator: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """STOP replies FAILED once nothing of the run is left, even of children that don't heed TERM."""
    stubborn = f"trap '' TERM; (trap '' TERM; echo $$ >> {tmp_path}/pids; sleep 60) & sleep 60"
    await orchestrator.begin("stopped", counted(tmp_path, stubborn))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    assert await orchestrator.control("stopped", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
    assert alive(tmp_path) == []
    assert (await orchestrator.status("stopped")).error_kind == "stopped"
    event = (await local_orchestrator.published(broker.url, "stopped", "failed"))[-1].payload
    assert isinstance(event, run_events_pb2.RunFailed)
    assert event.error_kind == run_events_pb2.ERROR_KIND_STOPPED
    assert await orchestrator.control("stopped", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED


async def test_stop_of_a_queued_run_starts_nothing(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A run that waits for a slot ends as stopped and is never started."""
    for name in ("first", "second", "queued"):
        await orchestrator.begin(name, until_told(tmp_path))
    assert (await orchestrator.status("queued")).state == pb.SIMULATION_STATE_QUEUED
    assert await orchestrator.control("queued", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
    (tmp_path / "go").touch()
    for name in ("first", "second"):
        assert (await orchestrator.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
    assert sorted(starts(tmp_path)) == ["first", "second"]


async def test_stop_of_an_ended_run_changes_nothing(orchestrator: local_orchestrator.Orchestrator) -> None:
    """What has completed stays completed."""
    await orchestrator.begin("done", RESULT)
    await orchestrator.ends("done")
    assert await orchestrator.control("done", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_COMPLETED


async def test_pause_holds_a_run_until_resume(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """A paused run does nothing; resumed it goes on to its end; a second PAUSE changes nothing."""
    await orchestrator.begin("paused", until_told(tmp_path))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await orchestrator.reaches("paused", pb.SIMULATION_STATE_RUNNING)
    for _ in range(2):
        assert await orchestrator.control("paused", pb.CONTROL_ACTION_PAUSE) == pb.SIMULATION_STATE_PAUSED
    [pid] = alive(tmp_path)
    # D: a shell that was held while it waits for a child that was held before its exec.
    await wait.until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] in "TD", what="it to be held")
    (tmp_path / "go").touch()
    assert (await orchestrator.status("paused")).state == pb.SIMULATION_STATE_PAUSED
    await orchestrator.control("paused", pb.CONTROL_ACTION_RESUME)
    assert (await orchestrator.ends("paused")).state == pb.SIMULATION_STATE_COMPLETED


async def test_a_paused_run_can_be_stopped(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """STOP ends held processes at once, not after the grace of those that ignore it."""
    await orchestrator.begin("held", until_told(tmp_path))
    await wait.until(lambda: starts(tmp_path), what="the simulation to start")
    await orchestrator.reaches("held", pb.SIMULATION_STATE_RUNNING)
    await orchestrator.control("held", pb.CONTROL_ACTION_PAUSE)
    async with asyncio.timeout(2.5):
        assert await orchestrator.control("held", pb.CONTROL_ACTION_STOP) == pb.SIMULATION_STATE_FAILED
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
async def test_what_cannot_be_done_is_refused(
    orchestrator: local_orchestrator.Orchestrator, action: pb.ControlAction.ValueType, code: grpc.StatusCode
) -> None:
    """An ended run can't be paused or resumed, no process can be stepped or reset; the status says which it is."""
    await orchestrator.begin("ended", RESULT)
    await orchestrator.ends("ended")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await orchestrator.control("ended", action)
    assert refused.value.code() == code


async def test_control_of_an_unknown_run_is_not_found(orchestrator: local_orchestrator.Orchestrator) -> None:
    """STOP of an id that nobody ordered is NOT_FOUND."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await orchestrator.control("unknown", pb.CONTROL_ACTION_STOP)
    assert refused.value.code() == grpc.StatusCode.NOT_FOUND


async def test_a_crash_loses_and_doubles_nothing(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """After kill -9 a running simulation is adopted, one that ended meanwhile is finished, a queued one starts."""
    await fresh.begin("crash-ends", counted(tmp_path, f"until [ -e {tmp_path}/end ]; do sleep 0.01; done; {RESULT}"))
    await fresh.begin("crash-runs", until_told(tmp_path))
    await fresh.begin("crash-queued", counted(tmp_path, RESULT))
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
        assert [one.subject for one in stored] == ["sim.run_started", "sim.run_completed"]
    assert sorted(starts(tmp_path)) == ["crash-ends", "crash-queued", "crash-runs"]


@pytest.mark.parametrize(("runs", "crashes"), [(15, 2), pytest.param(40, 5, marks=pytest.mark.long)])
async def test_crashes_at_any_moment_start_every_run_once(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path, runs: int, crashes: int
) -> None:
    """Killed again and again while it starts and ends runs, it starts each exactly once and tells of each end."""
    names = [f"often-{number:02d}" for number in range(runs)]
    commands = [local_orchestrator.command(name, counted(tmp_path, RESULT)) for name in names]
    await fresh.calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
    for crash in range(1, crashes + 1):
        await wait.until(functools.partial(started_at_least, tmp_path, 5 * crash), what="more runs to start")
        await fresh.restart(crash=True)
    for name in names:
        assert (await fresh.ends(name)).state == pb.SIMULATION_STATE_COMPLETED
    assert sorted(starts(tmp_path)) == names
    expected = sorted(f"{name}:{what}" for name in names for what in ("started", "completed"))

    async def told() -> list[str]:
        stored = [one.message_id for one in await local_orchestrator.events(broker.url) if "often-" in one.message_id]
        return sorted(stored) if len(stored) >= len(expected) else []

    assert await wait.until(told, what="all events") == expected


async def test_processes_that_vanish_are_an_infrastructure_failure(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A run whose processes are gone after a restart, without an exit code, failed, and may be tried again."""
    await fresh.begin("vanished", until_told(tmp_path))
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
    """Where a crash lets a second wrapper come to one run, the slower of the two starts nothing and is no failure."""
    order = model.Order("raced", counted(tmp_path, f"sleep 0.2; {RESULT}").encode(), "sha", 1, "exp")
    rivals = [simulation.Simulation(tmp_path / "raced") for _ in range(5)]
    for rival in rivals:
        rival.launch(simulation.Command.parse(local_orchestrator.SHELL), order)
    for rival in rivals:
        await rival.ended()
        assert rival.end().metrics == {"population": 12.0}
    assert starts(tmp_path) == ["raced"]


async def test_nobody_starts_a_forbidden_run(tmp_path: Path) -> None:
    """A claim taken by the orchestrator itself keeps a late wrapper from starting the simulation."""
    order = model.Order("forbidden", counted(tmp_path, RESULT).encode(), "sha", 1, "exp")
    run = simulation.Simulation(tmp_path / "forbidden")
    assert run.forbid()
    assert not run.forbid()
    run.launch(simulation.Command.parse(local_orchestrator.SHELL), order)
    await run.ended()
    assert starts(tmp_path) == []
    assert run.exit_code() is None


async def test_shutdown_ends_what_runs_and_keeps_what_waits(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """SIGTERM fails running simulations as retryable, tells so, leaves no process; queued ones run after the start."""
    for name in ("down-one", "down-two", "down-queued"):
        await fresh.begin(name, until_told(tmp_path))
    await wait.until(lambda: len(starts(tmp_path)) == 2, what="both slots to be taken")
    await fresh.stop(grace=10)
    assert fresh.exit_code == 0, fresh.last_words()
    assert alive(tmp_path) == []
    event = (await local_orchestrator.events(broker.url, "down-one"))[-1].payload
    assert isinstance(event, run_events_pb2.RunFailed)
    assert (event.error_kind, event.retryable) == (run_events_pb2.ERROR_KIND_INFRASTRUCTURE, True)

    (tmp_path / "go").touch()
    await fresh.restart()
    assert (await fresh.ends("down-queued")).state == pb.SIMULATION_STATE_COMPLETED
    assert (await fresh.status("down-two")).error_kind == "infrastructure"
    assert starts(tmp_path).count("down-queued") == 1


async def test_events_outlive_the_broker_and_the_orchestrator(tmp_path: Path) -> None:
    """What ends while the broker is away is published, in order, when both are back."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
            await broker.kill()
            await orchestrator.begin("outage", RESULT)
            await orchestrator.ends("outage")
            await orchestrator.restart(crash=True)
            await broker.start()
            stored = await local_orchestrator.published(broker.url, "outage", "completed")
            assert [one.subject for one in stored] == ["sim.run_started", "sim.run_completed"]
            # And a broker that comes back while the orchestrator stays.
            await broker.kill()
            await orchestrator.begin("again", RESULT)
            await orchestrator.ends("again")
            await broker.start()
            await local_orchestrator.published(broker.url, "again", "completed")


async def test_the_orchestrator_serves_without_a_broker(tmp_path: Path) -> None:
    """Started before its broker it takes runs on, and publishes once the broker is there."""
    broker = servers.NatsServer(tmp_path / "nats")
    await broker.start()
    await broker.stop()
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        await orchestrator.begin("early", RESULT)
        await orchestrator.ends("early")
        async with broker:
            await local_orchestrator.published(broker.url, "early", "completed")


async def test_a_stream_that_holds_the_subjects_is_used_as_it_is(tmp_path: Path) -> None:
    """Events go to an operator's own stream where one has the subjects; no second one is made."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        client = await nats.connect(broker.url)
        stream = client.jetstream()
        await stream.add_stream(name="OPERATORS", subjects=["sim.>"])
        async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
            await orchestrator.begin("operators", RESULT)
            await orchestrator.ends("operators")

            async def both() -> bool:
                return (await stream.stream_info("OPERATORS")).state.messages == 2

            await wait.until(both, what="both events in the operator's stream")
        assert [info.config.name for info in await stream.streams_info()] == ["OPERATORS"]
        await client.close()
