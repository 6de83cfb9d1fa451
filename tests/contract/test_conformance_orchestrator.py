"""The conformance kit passes orchestrators that keep the contract, and finds each way of breaking it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ems_worker.adapters.orchestrator import commands
from ems_worker.conformance import calls, check, kit, orchestrator
from ems_worker.core.lifecycle.outcome import Outcome
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wrong_orchestrator

SHELL_SHORT = b"""echo '{"metrics": {"population": 12}}'\n"""
SHELL_LONG = b"""sleep 5; echo '{"metrics": {"population": 12}}'\n"""
# What a check says where the orchestrator is wrong in this way.
FINDS = {
    "knows-all": ("start-accepted", "answered ALREADY_EXISTS instead of ACCEPTED"),
    "never-ends": ("run-ends", "neither sim.run_completed nor sim.run_failed"),
    "restarts-running": ("known-while-running", "a running run was answered ACCEPTED"),
    "no-outcome": ("known-when-ended", "StartSimulationResponse.outcome isn't set, which counts as ACCEPTED"),
    "restarts-ended": ("known-when-ended", "an ended run was answered ACCEPTED"),
    "check-then-act": ("ten-connections", "10 ACCEPTED"),
    "any-sha": ("other-config-sha", "answered ALREADY_EXISTS instead of FAILED_PRECONDITION"),
    "small-messages": ("large-configuration", "answered RESOURCE_EXHAUSTED"),
    "batch-fails-whole": ("partial-batch", "failed as a whole with INVALID_ARGUMENT"),
    "batch-forgets-one": ("partial-batch", "expected"),
    "stop-knows-all": ("stop-unknown", "answered OK with the state SIMULATION_STATE_COMPLETED"),
    "stop-does-nothing": ("stop-running", "the run completed all the same"),
    "stop-kind": ("stop-running", "error_kind is 'simulation'"),
    "status-forgets-one": ("status", "asked for 3 ids"),
    "status-knows-all": ("status", "nobody started is FAILED instead of NOT_FOUND"),
    "status-too-early": ("status", "not ended is COMPLETED instead of QUEUED or RUNNING"),
    "status-metrics": ("status", "the event had {'population': 7.0}"),
    "no-slots": ("capacity", "slots is 0"),
    "capacity-once": ("capacity", "no capacity came when a run began"),
    "loses-events": ("broker-outage", "neither sim.run_completed nor sim.run_failed"),
    "keeps-slots": ("nothing-left-running", "1 slots are taken"),
    "ends-twice": ("nothing-left-running", "ended as sim.run_completed and as sim.run_failed"),
    "status-too-late": ("nothing-left-running", "their status says that they go on"),
    "no-version": ("event-subjects", "event_type_key is 'sim.run_started', not 'sim.run_started.v1'"),
    "no-event-id": ("event-envelopes", "event_id is empty"),
    "milliseconds": ("event-envelopes", "not nanoseconds"),
    "no-content-type": ("event-envelopes", "payload_content_type is ''"),
    "no-payload": ("event-payloads", "the payload isn't a fes.simulation.events.v1.RunStarted"),
    "no-time": ("event-payloads", "finished_at is missing"),
    "no-metrics": ("event-payloads", "metrics is empty"),
    "no-uri": ("event-payloads", "not a mapping of names to URIs"),
    "no-message-id": ("message-ids", "has no Nats-Msg-Id"),
    "random-ids": ("message-ids", "was published under several ids"),
    "new-ids-after-outage": ("message-ids", "was published under several ids"),
    "forgets": ("known-after-restart", "ended before the restart was answered ACCEPTED"),
    "tells-again": ("started-once", "two starts?"),
}
# What has to happen before that check can see it.
FIRST = {"new-ids-after-outage": "broker-outage", "tells-again": "known-when-ended"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


async def outage(broker: servers.NatsServer) -> None:
    """The broker is away long enough for runs to end meanwhile."""
    await broker.kill()
    await asyncio.sleep(0.5)
    await broker.start()


async def results(options: kit.Options) -> dict[str, check.Result]:
    """What the kit finds, by check."""
    return {one.name: one async for one in orchestrator.run(options)}


async def test_the_local_orchestrator_conforms(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Our own orchestrator passes every check, its restart and the broker's among them; nothing is skipped."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, slots=4) as one:
        options = kit.Options(
            one.target,
            broker.url,
            short=SHELL_SHORT,
            long=SHELL_LONG,
            timeout=20,
            restart=one.restart,
            restart_broker=lambda: outage(broker),
        )
        found = await results(options)
    assert list(found) == [one.name for one in orchestrator.CHECKS]
    assert {name: one.words for name, one in found.items() if one.outcome is not check.Outcome.PASSED} == {}


class Scripted:
    """The scripted orchestrator in this process; `restart` gives it a memory, or takes it."""

    def __init__(self, broker: servers.NatsServer, way: str) -> None:
        self._broker = broker
        self._way = way
        self._memory: dict[str, wrong_orchestrator.Run] = {}
        self._stack = contextlib.AsyncExitStack()
        self.address = "127.0.0.1:0"

    async def start(self) -> None:
        serving = wrong_orchestrator.serving(self.address, self._broker.url, self._way, self._memory)
        self.address = await self._stack.enter_async_context(serving)

    async def stop(self) -> None:
        await self._stack.aclose()

    async def restart(self) -> None:
        await self.stop()
        if self._way == "forgets":
            self._memory.clear()
        await self.start()

    def options(self, *only: str) -> kit.Options:
        """A kit against it whose runs take next to no time."""
        timeout = 10.0 if self._way in ("", "unset") else 1.0
        return kit.Options(
            self.address,
            self._broker.url,
            short=b"0\n",
            long=b"0.5\n",
            timeout=timeout,
            restart=self.restart,
            restart_broker=lambda: outage(self._broker),
            only=frozenset(only),
        )


@contextlib.asynccontextmanager
async def scripted(broker: servers.NatsServer, way: str = "") -> AsyncIterator[Scripted]:
    one = Scripted(broker, way)
    await one.start()
    try:
        yield one
    finally:
        await one.stop()


@pytest.mark.parametrize("way", ["", "unset"])
async def test_a_right_orchestrator_passes_all(broker: servers.NatsServer, way: str) -> None:
    """The scripted orchestrator that is wrong in no way passes: what the others fail for is what is wrong with them.

    One that sets no outcome where it accepts a run is right too: the worker takes it so.
    """
    async with scripted(broker, way) as one:
        found = await results(one.options())
    assert {name: one.words for name, one in found.items() if one.outcome is not check.Outcome.PASSED} == {}


@pytest.mark.parametrize("way", FINDS)
async def test_each_way_of_being_wrong_is_found(broker: servers.NatsServer, way: str) -> None:
    """An orchestrator that breaks the contract in one way fails at the check that is about it, which says why."""
    name, words = FINDS[way]
    async with scripted(broker, way) as one:
        found = (await results(one.options(*filter(None, (FIRST.get(way), name)))))[name]
    assert found.outcome is check.Outcome.FAILED
    assert words in found.words


async def test_every_check_has_an_orchestrator_that_fails_it() -> None:
    """No check is without its wrong orchestrator."""
    assert {name for name, _ in FINDS.values()} == {one.name for one in orchestrator.CHECKS}


async def test_what_is_left_out_is_skipped_with_words(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Optional calls that are UNIMPLEMENTED and restarts without a command are skipped and say why; the rest passes."""
    program = servers.GrpcProgram(
        "tests.support.oracle", ["--server", broker.url, "--no-batch", "--delay", "1"], log=tmp_path / "oracle.log"
    )
    async with program:
        found = await results(kit.Options(program.target, broker.url, timeout=10))
    skipped = {name: one.words for name, one in found.items() if one.outcome is check.Outcome.SKIPPED}
    assert {name: one.words for name, one in found.items() if one.outcome is check.Outcome.FAILED} == {}
    assert {name: words.split(" is ")[0].split(",")[0] for name, words in skipped.items()} == {
        "partial-batch": "StartSimulations",
        "stop-unknown": "ControlSimulation",
        "stop-running": "ControlSimulation",
        "status": "GetSimulationStatus",
        "capacity": "WatchCapacity",
        "broker-outage": "give --broker-restart-command",
        "known-after-restart": "give --restart-command",
    }


@pytest.mark.parametrize("outcome", [*pb.StartOutcome.values(), 7])
@pytest.mark.parametrize("code", [0, 3, 9, 99])
def test_the_kit_reads_a_response_as_the_worker_does(outcome: int, code: int) -> None:
    """Whatever outcome and status code are in it, or are not: one rule, and the kit names the field."""
    response = pb.StartSimulationResponse(simulation_id="a", status_code=code)
    response.outcome = outcome  # type: ignore[assignment]  # a later orchestrator may have others
    worker, found = commands.read("a", response), calls.verdict(response)
    submitted = worker.outcome is Outcome.SUBMITTED
    assert submitted is (found.verdict in (calls.ACCEPTED, calls.ALREADY_EXISTS))
    if worker.code not in ("OK", "ALREADY_EXISTS", "UNKNOWN"):
        assert found.verdict == worker.code
    if outcome not in (pb.START_OUTCOME_ACCEPTED, pb.START_OUTCOME_ALREADY_EXISTS):
        assert "StartSimulationResponse.outcome" in str(found)
