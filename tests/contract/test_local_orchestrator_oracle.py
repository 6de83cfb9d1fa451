"""The oracle, the no-op orchestrator of other tests, records exactly what happened."""

import asyncio
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, oracle, servers, wait


def program(broker: servers.NatsServer, directory: Path, *more: str) -> servers.GrpcProgram:
    """The oracle as a process, not started yet."""
    return servers.GrpcProgram("tests.support.oracle", ["--server", broker.url, *more], log=directory / "oracle.log")


async def test_the_oracle_logs_every_call_and_reads_its_log_after_a_crash(tmp_path: Path) -> None:
    """Accepted, duplicate and conflicting starts are logged before the reply, and stay idempotent after a restart."""
    log = tmp_path / "calls"
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with program(broker, tmp_path, "--log", str(log), "--fail", "*-bad:infrastructure") as process:
            async with grpc.aio.insecure_channel(process.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                commands = [local_orchestrator.command(name, "") for name in ("a", "b-bad", "a")]
                batch = await calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
                assert [response.outcome for response in batch.responses] == [1, 1, 2]
                completed = (await local_orchestrator.published(broker.url, "a", "completed"))[0].payload
                assert isinstance(completed, run_events_pb2.RunCompleted)
                assert dict(completed.metrics) == oracle.metrics("a")
                await local_orchestrator.published(broker.url, "b-bad", "failed")
            await process.restart(crash=True)
            async with grpc.aio.insecure_channel(process.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                again = await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)
                assert again.outcome == pb.START_OUTCOME_ALREADY_EXISTS
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await calls.StartSimulation(local_orchestrator.command("a", "", sha="other"), timeout=10)
                assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        expected = ["accepted a sha", "accepted b-bad sha", "duplicate a sha", "duplicate a sha", "conflict a other"]
        assert [line for line in log.read_text().splitlines() if not line.startswith("ended ")] == expected


async def test_the_oracle_can_be_limited_to_the_required_call(tmp_path: Path) -> None:
    """With --no-batch every call except StartSimulation is UNIMPLEMENTED."""
    async with servers.NatsServer(tmp_path / "nats") as broker, program(broker, tmp_path, "--no-batch") as process:
        async with grpc.aio.insecure_channel(process.target) as channel:
            calls = pb_grpc.OrchestratorClientServiceStub(channel)
            assert (await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)).outcome == 1
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await calls.StartSimulations(pb.StartSimulationsRequest(), timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_delayed_run_is_running_until_it_is_stopped(tmp_path: Path) -> None:
    """With --delay a run is RUNNING, and STOP ends it as stopped."""
    async with servers.NatsServer(tmp_path / "nats") as broker, program(broker, tmp_path, "--delay", "60") as process:
        async with grpc.aio.insecure_channel(process.target) as channel:
            calls = pb_grpc.OrchestratorClientServiceStub(channel)
            await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)
            asked = pb.GetSimulationStatusRequest(simulation_ids=["a", "b"])
            states = [status.state for status in (await calls.GetSimulationStatus(asked, timeout=10)).statuses]
            assert states == [pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_NOT_FOUND]
            stop = pb.ControlSimulationCommand(simulation_id="a", action=pb.CONTROL_ACTION_STOP)
            assert (await calls.ControlSimulation(stop, timeout=10)).state == pb.SIMULATION_STATE_FAILED
        await local_orchestrator.published(broker.url, "a", "failed")


async def test_the_oracle_takes_many_batches_at_once(tmp_path: Path) -> None:
    """Two thousand runs in twenty concurrent batches are all logged before the reply, and all their events stored."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with program(broker, tmp_path, "--log", str(tmp_path / "calls")) as process:
            async with grpc.aio.insecure_channel(process.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                batches = [
                    pb.StartSimulationsRequest(
                        commands=[local_orchestrator.command(f"r-{batch}-{number}", "") for number in range(100)]
                    )
                    for batch in range(20)
                ]
                await asyncio.gather(*(calls.StartSimulations(batch, timeout=60) for batch in batches))
                lines = (tmp_path / "calls").read_text().splitlines()
                assert sum(line.startswith("accepted ") for line in lines) == 2000

                async def all_published() -> bool:
                    return await local_orchestrator.event_count(broker.url) == 2000

                await wait.until(all_published, timeout=60, what="2000 events")
