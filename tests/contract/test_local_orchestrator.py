"""The calls of the local orchestrator, and the events that it publishes, follow section 5 of the contract."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, servers, wait

RESULT = """echo '{"metrics": {"population": 12, "speed": 0.5}}'"""


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
    orchestrator = local_orchestrator.Orchestrator(broker.url, tmp_path_factory.mktemp("shared"), shared=True)
    yield orchestrator
    asyncio.run(orchestrator.stop(grace=10))


@pytest.fixture
async def orchestrator(shared: local_orchestrator.Orchestrator) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """The shared orchestrator with a channel for this test; its simulations are shell scripts."""
    async with shared:
        yield shared


@pytest.fixture
async def fresh(broker: servers.NatsServer, tmp_path: Path) -> AsyncIterator[local_orchestrator.Orchestrator]:
    """An orchestrator for this test alone; its simulations are shell scripts."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path) as orchestrator:
        yield orchestrator


async def test_a_run_goes_from_order_to_result(
    orchestrator: local_orchestrator.Orchestrator, broker: servers.NatsServer
) -> None:
    """An accepted run is started once, and its status and its events report the same end."""
    response = await orchestrator.begin("order-to-result", RESULT, sha="abc")
    assert response.outcome == pb.START_OUTCOME_ACCEPTED

    status = await orchestrator.ends("order-to-result")
    assert status.state == pb.SIMULATION_STATE_COMPLETED
    assert dict(status.metrics) == {"population": 12.0, "speed": 0.5}
    assert status.config_sha == "abc"
    assert not status.HasField("retryable")

    started, completed = await local_orchestrator.published(broker.url, "order-to-result", "completed")
    assert [started.subject, completed.subject] == ["sim.run_started", "sim.run_completed"]
    assert [started.message_id, completed.message_id] == ["order-to-result:started", "order-to-result:completed"]
    assert completed.envelope.event_type_key == "sim.run_completed.v1"
    assert completed.envelope.payload_content_type == "application/x-protobuf"
    assert completed.envelope.event_id == completed.message_id
    assert isinstance(completed.payload, run_events_pb2.RunCompleted)
    assert completed.payload.metrics == status.metrics
    assert completed.payload.started_at == status.started_at
    assert completed.payload.finished_at == status.finished_at
    assert started.envelope.timestamp_ns <= completed.envelope.timestamp_ns


async def test_a_known_id_starts_nothing(orchestrator: local_orchestrator.Orchestrator, tmp_path: Path) -> None:
    """The same work again is ALREADY_EXISTS, other work FAILED_PRECONDITION, even if the run ended before a restart."""
    script = f"echo started >> {tmp_path}/starts; {RESULT}"
    for attempt in range(3):
        if attempt == 2:
            await orchestrator.restart(crash=True)
        response = await orchestrator.begin("known", script, sha="one")
        assert response.outcome == (pb.START_OUTCOME_ALREADY_EXISTS if attempt else pb.START_OUTCOME_ACCEPTED)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await orchestrator.begin("known", script, sha="two")
        assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        await orchestrator.ends("known")
    assert (tmp_path / "starts").read_text() == "started\n"


async def test_a_batch_judges_each_command_alone(orchestrator: local_orchestrator.Orchestrator) -> None:
    """Valid commands in a batch are accepted beside duplicate, conflicting and invalid ones."""
    await orchestrator.begin("batch-known", RESULT)
    request = pb.StartSimulationsRequest(
        commands=[
            local_orchestrator.command("batch-new", RESULT),
            local_orchestrator.command("batch-known", RESULT),
            local_orchestrator.command("batch-known", RESULT, sha="other"),
            local_orchestrator.command("../batch-escape", RESULT),
            local_orchestrator.command("batch-without-sha", RESULT, sha=""),
            local_orchestrator.command("batch-new", RESULT),
        ]
    )
    responses = (await orchestrator.calls.StartSimulations(request, timeout=10)).responses
    assert [(response.simulation_id, response.outcome, response.status_code) for response in responses] == [
        ("batch-new", pb.START_OUTCOME_ACCEPTED, 0),
        ("batch-known", pb.START_OUTCOME_ALREADY_EXISTS, 0),
        ("batch-known", pb.START_OUTCOME_REJECTED, grpc.StatusCode.FAILED_PRECONDITION.value[0]),
        ("../batch-escape", pb.START_OUTCOME_REJECTED, grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        ("batch-without-sha", pb.START_OUTCOME_REJECTED, grpc.StatusCode.INVALID_ARGUMENT.value[0]),
        ("batch-new", pb.START_OUTCOME_ALREADY_EXISTS, 0),
    ]
    assert (await orchestrator.ends("batch-new")).state == pb.SIMULATION_STATE_COMPLETED


async def test_an_invalid_id_is_an_invalid_argument(orchestrator: local_orchestrator.Orchestrator) -> None:
    """An id that can't be the name of a directory is refused with the required pattern."""
    with pytest.raises(grpc.aio.AioRpcError, match="names a directory") as refused:
        await orchestrator.begin("a/b", RESULT)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_slots_limit_concurrent_simulations(
    orchestrator: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """With two slots, at most two simulations run at a time, and they start in the order of arrival."""
    script = (
        f"echo + >> {tmp_path}/trace; echo $SIMULATION_ID >> {tmp_path}/order; sleep 0.05; echo - >> {tmp_path}/trace"
    )
    names = [f"slots-{number:02d}" for number in range(10)]
    commands = [local_orchestrator.command(name, script) for name in names]
    await orchestrator.calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
    for name in names:
        await orchestrator.ends(name)
    running = max_running = 0
    for sign in (tmp_path / "trace").read_text().split():
        running += 1 if sign == "+" else -1
        max_running = max(max_running, running)
    assert max_running == 2
    order = (tmp_path / "order").read_text().split()
    # Two simulations start concurrently, so that neighbours may be swapped.
    assert all(abs(order.index(name) - number) <= 1 for number, name in enumerate(names))


async def test_the_status_of_an_unknown_run_is_not_found(orchestrator: local_orchestrator.Orchestrator) -> None:
    """An unknown id gets a status of its own, beside those of known runs."""
    await orchestrator.begin("status-known", RESULT)
    request = pb.GetSimulationStatusRequest(simulation_ids=["status-unknown", "status-known"])
    unknown, known = (await orchestrator.calls.GetSimulationStatus(request, timeout=10)).statuses
    assert (unknown.simulation_id, unknown.state) == ("status-unknown", pb.SIMULATION_STATE_NOT_FOUND)
    assert known.state != pb.SIMULATION_STATE_NOT_FOUND


async def test_capacity_is_reported_at_once_and_after_every_change(
    fresh: local_orchestrator.Orchestrator, tmp_path: Path
) -> None:
    """A watcher receives idle slots, then full slots and a queue, then idle slots again."""
    watch = fresh.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=30)
    first = await anext(aiter(watch))
    assert (first.slots, first.in_use, first.queued) == (2, 0, 0)
    assert first.max_message_bytes == 4 * 1024 * 1024

    async def until(in_use: int, queued: int) -> None:
        async for capacity in watch:
            if (capacity.in_use, capacity.queued) == (in_use, queued):
                return

    script = f"until [ -e {tmp_path}/go ]; do sleep 0.01; done"
    for number in range(3):
        await fresh.begin(f"capacity-{number}", script)
    await until(in_use=2, queued=1)
    (tmp_path / "go").touch()
    await until(in_use=0, queued=0)
    watch.cancel()


async def test_the_message_limit_can_be_set_and_is_reported(broker: servers.NatsServer, tmp_path: Path) -> None:
    """A request above the reported limit is RESOURCE_EXHAUSTED; one below it is accepted."""
    more = ["--max-message-bytes", "100000"]
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, more=more) as orchestrator:
        capacity = await anext(aiter(orchestrator.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=10)))
        assert capacity.max_message_bytes == 100_000
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await orchestrator.begin("limit-over", "#" * 101_000)
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await orchestrator.begin("limit-under", "#" * 90_000)).outcome == pb.START_OUTCOME_ACCEPTED


async def test_a_data_directory_has_one_orchestrator(
    fresh: local_orchestrator.Orchestrator, broker: servers.NatsServer, tmp_path: Path
) -> None:
    """A second orchestrator on the same directory ends at once with a clear error."""
    second = local_orchestrator.Orchestrator(broker.url, tmp_path)
    second.log = tmp_path / "second.log"
    second.start()
    assert await second.wait(timeout=10) == 1
    assert second.last_words().startswith("error: another orchestrator uses")


async def test_a_wrong_command_line_is_a_usage_error(tmp_path: Path) -> None:
    """An open quote in the command line of the simulator is reported, with exit code 2."""
    broken = local_orchestrator.Orchestrator("nats://127.0.0.1:1", tmp_path, simulator="sh 'open")
    broken.start()
    assert await broken.wait(timeout=10) == 2
    assert "--simulator: No closing quotation" in broken.last_words()


async def test_a_run_whose_caller_disconnects_is_not_lost(orchestrator: local_orchestrator.Orchestrator) -> None:
    """A start whose deadline passes before the reply is either unknown or runs to its end; it never stays queued."""
    names = [f"gone-{number}" for number in range(30)]
    calls = [
        orchestrator.calls.StartSimulation(local_orchestrator.command(name, "true"), timeout=0.001 + number / 5000)
        for number, name in enumerate(names)
    ]
    await asyncio.gather(*calls, return_exceptions=True)

    async def none_open() -> bool:
        statuses = [(await orchestrator.status(name)).state for name in names]
        return not {pb.SIMULATION_STATE_QUEUED, pb.SIMULATION_STATE_RUNNING}.intersection(statuses)

    await wait.until(none_open, what="all accepted runs to end")
