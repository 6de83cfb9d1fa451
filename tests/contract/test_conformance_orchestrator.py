"""The conformance kit passes orchestrators that keep the contract, and detects each way of breaking it."""

import asyncio
import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from ems_worker.adapters.orchestrator import commands
from ems_worker.conformance import calls, check, kit, orchestrator
from ems_worker.core.lifecycle.outcome import Outcome
from ems_worker.pb.fes.orchestrator.v1 import orchestrator_pb2 as pb
from tests.support import local_orchestrator, servers, wait, wrong_orchestrator

SHELL_SHORT = b"""echo '{"metrics": {"population": 12}}'\n"""
SHELL_LONG = b"""sleep 5; echo '{"metrics": {"population": 12}}'\n"""
# The check that fails for an orchestrator that is wrong in this way, and a part of its message.
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
    "stop-does-nothing": ("stop-running", "the run completed nevertheless"),
    "stop-kind": ("stop-running", "error_kind is 'simulation'"),
    "pause-does-nothing": ("pause-resume", "with the state SIMULATION_STATE_RUNNING"),
    "stop-forgets-paused": ("stop-paused", "neither sim.run_completed nor sim.run_failed"),
    "status-forgets-one": ("status", "asked for 3 ids"),
    "status-knows-all": ("status", "an unknown run is FAILED instead of NOT_FOUND"),
    "status-too-early": ("status", "not ended is COMPLETED instead of QUEUED or RUNNING"),
    "status-metrics": ("status", "the event had {'population': 7.0}"),
    "no-slots": ("capacity", "slots is 0"),
    "capacity-once": ("capacity", "no capacity came when a run began"),
    "output-knows-all": ("output", "the output of an unknown run was answered OK"),
    "output-from-start": ("output", "isn't the rest of it"),
    "output-any-name": ("output", "a file outside the output directory was answered OK"),
    "loses-events": ("broker-outage", "neither sim.run_completed nor sim.run_failed"),
    "keeps-slots": ("nothing-left-running", "1 slots are taken"),
    "ends-twice": ("nothing-left-running", "ended as sim.run_completed and as sim.run_failed"),
    "status-too-late": ("nothing-left-running", "ended by their events, but not by their status"),
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
    "fails-open-runs": ("orderly-restart", "failed (infrastructure: it ended)"),
    "reports-again": ("started-once", "two starts?"),
}
# The check that must run first, so that this check can detect the fault.
FIRST = {"new-ids-after-outage": "broker-outage", "reports-again": "known-when-ended"}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.NatsServer]:
    """One nats-server for this module."""
    server = servers.run_sync(servers.NatsServer(tmp_path_factory.mktemp("nats")))
    yield server
    asyncio.run(server.stop())


# The ways that a check detects because something doesn't come within the timeout.
TIMED_OUT = ("never-ends", "stop-forgets-paused", "capacity-once", "loses-events", "keeps-slots")
# How many runs the kit begins while the broker is away.
RUNS_IN_AN_OUTAGE = 5


async def results(options: kit.Options) -> dict[str, check.FinishedCheck]:
    """The finished checks, by name."""
    return {finished.name: finished async for finished in orchestrator.run(options)}


def messages(finished: Mapping[str, check.FinishedCheck], result: check.CheckResult) -> dict[str, str]:
    """The messages of the checks with this result, by name."""
    return {name: each.message for name, each in finished.items() if each.result is result}


def not_passed(finished: Mapping[str, check.FinishedCheck]) -> dict[str, str]:
    """The messages of the checks that failed or were skipped, by name."""
    return messages(finished, check.CheckResult.FAILED) | messages(finished, check.CheckResult.SKIPPED)


async def test_the_local_orchestrator_conforms(broker: servers.NatsServer, tmp_path: Path) -> None:
    """Our own orchestrator passes every check, those with a restart included; no check is skipped."""
    async with local_orchestrator.Orchestrator(broker.url, tmp_path, slots=4) as local:

        def runs() -> set[str]:
            return set(os.listdir(local.data_dir / "runs"))

        async def idle() -> bool:
            call = local.calls.WatchCapacity(pb.WatchCapacityRequest(), timeout=10)
            capacity = await anext(aiter(call))
            return capacity.in_use + capacity.queued == 0

        async def outage() -> None:
            """Lasts until the runs that the kit begins meanwhile have ended."""
            before = runs()
            await broker.kill()
            await wait.until(lambda: len(runs() - before) >= RUNS_IN_AN_OUTAGE, what="runs to start")
            await wait.until(idle, what="the runs to end")
            await broker.start()

        options = kit.Options(
            local.target,
            broker.url,
            short=SHELL_SHORT,
            long=SHELL_LONG,
            timeout=20,
            restart=functools.partial(local.restart, crash=True),
            restart_in_order=local.restart,
            restart_broker=outage,
        )
        finished = await results(options)
    assert list(finished) == [each.name for each in orchestrator.CHECKS]
    assert not_passed(finished) == {}


class Scripted:
    """The scripted orchestrator in this process; `restart` keeps its memory, unless its way is to forget."""

    def __init__(self, broker: servers.NatsServer, way: str) -> None:
        self._broker = broker
        self._way = way
        self._memory: dict[str, wrong_orchestrator.ScriptedRun] = {}
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

    async def outage(self) -> None:
        """The broker is away until the kit has begun its runs, and until they have ended if they publish nothing."""
        before = len(self._memory)
        await self._broker.kill()
        await wait.until(lambda: len(self._memory) == before + RUNS_IN_AN_OUTAGE, what="runs to begin")
        if self._way == "loses-events":
            await wait.until(lambda: all(run.end for run in self._memory.values()), what="the runs to end")
        await self._broker.start()

    def options(self, *only: str) -> kit.Options:
        """The options to check it with short runs."""
        timeout = 3.0 if self._way in TIMED_OUT else 10.0
        return kit.Options(
            self.address,
            self._broker.url,
            short=b"0\n",
            long=b"0.5\n",
            timeout=timeout,
            restart=self.restart,
            restart_in_order=self.restart,
            restart_broker=self.outage,
            only=frozenset(only),
        )


@contextlib.asynccontextmanager
async def scripted(broker: servers.NatsServer, way: str = "") -> AsyncIterator[Scripted]:
    orchestrator_ = Scripted(broker, way)
    await orchestrator_.start()
    try:
        yield orchestrator_
    finally:
        await orchestrator_.stop()


@pytest.mark.parametrize("way", ["", "unset"])
async def test_a_correct_orchestrator_passes_all_checks(broker: servers.NatsServer, way: str) -> None:
    """The scripted orchestrator passes if it isn't wrong in any way, so the wrong ones fail for their fault.

    It may leave the outcome unset when it accepts a run, as the worker allows.
    """
    async with scripted(broker, way) as correct:
        finished = await results(correct.options())
    assert not_passed(finished) == {}


@pytest.mark.parametrize("way", FINDS)
async def test_each_violation_is_detected(broker: servers.NatsServer, way: str) -> None:
    """An orchestrator that breaks the contract in one way fails the check for it, whose message says why."""
    name, message = FINDS[way]
    async with scripted(broker, way) as wrong:
        finished = (await results(wrong.options(*filter(None, (FIRST.get(way), name)))))[name]
    assert finished.result is check.CheckResult.FAILED
    assert message in finished.message


async def test_every_check_has_an_orchestrator_that_fails_it() -> None:
    """For each check there is a way of being wrong that it detects."""
    assert {name for name, _ in FINDS.values()} == {each.name for each in orchestrator.CHECKS}


async def test_checks_of_optional_features_are_skipped_with_a_reason(
    broker: servers.NatsServer, tmp_path: Path
) -> None:
    """Checks of UNIMPLEMENTED calls, and of restarts without a command, are skipped; all other checks pass."""
    program = servers.GrpcProgram(
        "tests.support.oracle", ["--server", broker.url, "--no-batch", "--delay", "1"], log=tmp_path / "oracle.log"
    )
    async with program:
        finished = await results(kit.Options(program.target, broker.url, timeout=10))
    skipped = messages(finished, check.CheckResult.SKIPPED)
    assert messages(finished, check.CheckResult.FAILED) == {}
    assert {name: message.split(" is ")[0].split(",")[0] for name, message in skipped.items()} == {
        "partial-batch": "StartSimulations",
        "stop-unknown": "ControlSimulation",
        "stop-running": "ControlSimulation",
        "pause-resume": "PAUSE",
        "stop-paused": "PAUSE",
        "status": "GetSimulationStatus",
        "capacity": "WatchCapacity",
        "output": "GetSimulationOutput",
        "broker-outage": "give --broker-restart-command",
        "known-after-restart": "give --restart-command",
        "orderly-restart": "give --orderly-restart-command",
    }


@pytest.mark.parametrize("outcome", [*pb.StartOutcome.values(), 7])
@pytest.mark.parametrize("code", [0, 3, 9, 99])
def test_the_kit_reads_a_response_as_the_worker_does(outcome: int, code: int) -> None:
    """Both give the same meaning to every outcome and status code, set or not, and the kit names the field."""
    response = pb.StartSimulationResponse(simulation_id="a", status_code=code)
    response.outcome = outcome  # type: ignore[assignment]  # a later orchestrator may have other values
    answer, reply = commands.read("a", response), calls.read(response)
    submitted = answer.outcome is Outcome.SUBMITTED
    assert submitted is (reply.code in (calls.ACCEPTED, calls.ALREADY_EXISTS))
    if answer.code not in ("OK", "ALREADY_EXISTS", "UNKNOWN"):
        assert reply.code == answer.code
    if outcome not in (pb.START_OUTCOME_ACCEPTED, pb.START_OUTCOME_ALREADY_EXISTS):
        assert "StartSimulationResponse.outcome" in str(reply)
