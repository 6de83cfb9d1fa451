"""The oracle, the no-op orchestrator that other tests believe: what it remembers is what happened."""

import asyncio
from pathlib import Path

import grpc
import pytest

from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2_grpc as pb_grpc
from ems_worker.pb.fes.simulation.events.v1 import run_events_pb2
from tests.support import local_orchestrator, oracle, servers, wait


def program(broker: servers.NatsServer, directory: Path, *more: str) -> servers.GrpcProgram:
    """The oracle as a process."""
    return servers.GrpcProgram("tests.support.oracle", ["--server", broker.url, *more], log=directory / "oracle.log")


async def test_the_oracle_logs_every_call_and_knows_it_after_a_crash(tmp_path: Path) -> None:
    """Accepted, duplicate and conflicting starts have a line each before the reply; a restart stays idempotent."""
    log = tmp_path / "calls"
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with program(broker, tmp_path, "--log", str(log), "--fail", "*-bad:infrastructure") as one:
            async with grpc.aio.insecure_channel(one.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                commands = [local_orchestrator.command(name, "") for name in ("a", "b-bad", "a")]
                batch = await calls.StartSimulations(pb.StartSimulationsRequest(commands=commands), timeout=10)
                assert [response.outcome for response in batch.responses] == [1, 1, 2]
                completed = (await local_orchestrator.published(broker.url, "a", "completed"))[0].payload
                assert isinstance(completed, run_events_pb2.RunCompleted)
                assert dict(completed.metrics) == oracle.metrics("a")
                await local_orchestrator.published(broker.url, "b-bad", "failed")
            await one.restart(crash=True)
            async with grpc.aio.insecure_channel(one.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                again = await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)
                assert again.outcome == pb.START_OUTCOME_ALREADY_EXISTS
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await calls.StartSimulation(local_orchestrator.command("a", "", sha="other"), timeout=10)
                assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
        words = ["accepted a sha", "accepted b-bad sha", "duplicate a sha", "duplicate a sha", "conflict a other"]
        assert [line for line in log.read_text().splitlines() if not line.startswith("ended ")] == words


async def test_the_oracle_can_do_as_little_as_is_required(tmp_path: Path) -> None:
    """With --no-batch everything but StartSimulation is UNIMPLEMENTED."""
    async with servers.NatsServer(tmp_path / "nats") as broker, program(broker, tmp_path, "--no-batch") as one:
        async with grpc.aio.insecure_channel(one.target) as channel:
            calls = pb_grpc.OrchestratorClientServiceStub(channel)
            assert (await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)).outcome == 1
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await calls.StartSimulations(pb.StartSimulationsRequest(), timeout=10)
            assert refused.value.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_delayed_runs_are_running_until_they_are_stopped(tmp_path: Path) -> None:
    """With a delay a run is RUNNING, and STOP ends it as stopped."""
    async with servers.NatsServer(tmp_path / "nats") as broker, program(broker, tmp_path, "--delay", "60") as one:
        async with grpc.aio.insecure_channel(one.target) as channel:
            calls = pb_grpc.OrchestratorClientServiceStub(channel)
            await calls.StartSimulation(local_orchestrator.command("a", ""), timeout=10)
            asked = pb.GetSimulationStatusRequest(simulation_ids=["a", "b"])
            states = [status.state for status in (await calls.GetSimulationStatus(asked, timeout=10)).statuses]
            assert states == [pb.SIMULATION_STATE_RUNNING, pb.SIMULATION_STATE_NOT_FOUND]
            stop = pb.ControlSimulationCommand(simulation_id="a", action=pb.CONTROL_ACTION_STOP)
            assert (await calls.ControlSimulation(stop, timeout=10)).state == pb.SIMULATION_STATE_FAILED
        await local_orchestrator.published(broker.url, "a", "failed")


async def test_the_oracle_is_fast_enough_to_measure_others(tmp_path: Path) -> None:
    """Two thousand runs in batches are ended, with their events stored, in a few seconds; logged before the reply."""
    async with servers.NatsServer(tmp_path / "nats") as broker:
        async with program(broker, tmp_path, "--log", str(tmp_path / "calls")) as one:
            async with grpc.aio.insecure_channel(one.target) as channel:
                calls = pb_grpc.OrchestratorClientServiceStub(channel)
                batches = [
                    pb.StartSimulationsRequest(
                        commands=[local_orchestrator.command(f"r-{batch}-{number}", "") for number in range(100)]
                    )
                    for batch in range(20)
                ]
                async with asyncio.timeout(20):
                    await asyncio.gather(*(calls.StartSimulations(batch, timeout=20) for batch in batches))

                async def all_told() -> bool:
                    return await local_orchestrator.event_count(broker.url) == 2000

                await wait.until(all_told, timeout=20, what="2000 events")
        lines = (tmp_path / "calls").read_text().splitlines()
        assert sum(line.startswith("accepted ") for line in lines) == 2000
