"""The orchestrator's client while the orchestrator is away, hangs, or is overloaded."""

import asyncio
from pathlib import Path

import pytest

from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.lifecycle.outcome import Call, Outcome
from ems_worker.core.wire import Capacity, Control
from tests.support import link, servers, wait
from tests.support import orchestrator_client as support


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orchestrator") / "log"


async def test_the_answer_is_unknown_while_the_orchestrator_is_away(log: Path) -> None:
    """Calls fail as UNAVAILABLE instead of waiting for their deadline, so that the commands can be sent again later."""
    async with support.pair(log) as (program, client):
        await program.kill()
        await wait.until(lambda: not client.ready(), what="the loss")
        answers = await support.answers(client, [support.start("a"), support.start("b")])
        assert {(answer.outcome, answer.code) for answer in answers} == {(Outcome.UNKNOWN, "UNAVAILABLE")}
        assert (await client.control("a", Control.STOP)).code == "UNAVAILABLE"
        assert await client.status(["a"]) == {}


async def test_a_call_that_hangs_ends_at_its_deadline(log: Path) -> None:
    """Its answer is UNKNOWN, and other calls are answered meanwhile."""
    async with support.pair(log, deadline=2) as (_, client):
        hanging = asyncio.create_task(support.answers(client, [support.start("a", hang="yes")]))
        assert (await support.answers(client, [support.start("b")]))[0].outcome is Outcome.SUBMITTED
        (answer,) = await hanging
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "DEADLINE_EXCEEDED")


async def test_a_connection_that_stays_silent_is_replaced(log: Path) -> None:
    """After three unanswered calls in a row the client replaces a connection that may be half open."""
    async with servers.GrpcProgram(support.MODULE, [], log=log) as program:
        async with link.Link(int(program.target.rpartition(":")[2])) as half:
            async with Orchestrator.connect(half.address, deadline_seconds=1) as client:
                assert (await support.answers(client, [support.start("a")]))[0].outcome is Outcome.SUBMITTED
                half.freeze()
                codes = [(await support.answers(client, [support.start("b")]))[0].code for _ in range(3)]
                assert codes == ["DEADLINE_EXCEEDED"] * 3

                async def submitted() -> bool:
                    return (await support.answers(client, [support.start("b")]))[0].outcome is Outcome.SUBMITTED

                await wait.until(submitted, what="a new connection")


async def test_capacity_is_followed_over_a_replaced_connection(log: Path) -> None:
    """Closing the old connection cancels its calls, but doesn't end the iteration over the capacity."""
    async with support.pair(log, "--capacity", "5", deadline=0.3) as (_, client):
        reported: list[Capacity | None] = []

        async def follow() -> None:
            async for capacity in client.capacity():
                reported.append(capacity)  # noqa: PERF401  the test reads the list meanwhile

        following = asyncio.create_task(follow())
        await wait.until(lambda: reported, what="the first capacity")
        for _ in range(3):
            assert (await support.answers(client, [support.start("a", hang="yes")]))[0].code == "DEADLINE_EXCEEDED"
        # Gone with the old connection, and reported again on the new one.
        await wait.until(lambda: len(reported) == 3 or following.done(), what="the capacity on the new connection")
        assert [capacity and capacity.slots for capacity in reported] == [5, None, 5]
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


async def test_a_call_whose_connection_is_closed_is_unknown(log: Path) -> None:
    """Closing the client cancels its open calls, but not the task that waits for an answer."""
    async with servers.GrpcProgram(support.MODULE, [], log=log) as program:
        async with support.connected(program, deadline=10.0, window=64) as client:
            hanging = asyncio.create_task(support.answers(client, [support.start("a", hang="yes")]))

            async def begun() -> bool:
                return "StartSimulation" in await support.calls(client)

            await wait.until(begun, what="the call")
        (answer,) = await hanging
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "CANCELLED")


async def test_waiting_for_the_window_can_be_cancelled(log: Path) -> None:
    """A slot that a cancelled caller waited for, or has just got, goes to the next caller."""
    async with support.pair(log, "--delay", "0.05", window=1) as (_, client):
        tasks = [asyncio.create_task(support.answers(client, [support.start(f"r{n}")])) for n in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:4]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = [isinstance(result, asyncio.CancelledError) for result in done]
        assert cancelled == [False, True, True, True, False]
        assert (await support.answers(client, [support.start("after")]))[0].outcome is Outcome.SUBMITTED


async def test_overload_shrinks_the_window_and_good_answers_grow_it(log: Path) -> None:
    """A batch with a run that has to wait halves the window, and no more calls are open than that allows."""
    async with support.pair(log, "--delay", "0.02", window=16) as (_, client):
        assert client.rpc_window == 16
        busy = support.start("busy", outcome="REJECTED", code="RESOURCE_EXHAUSTED", message="queue is full")
        await support.answers(client, [support.start("good"), busy])
        assert client.rpc_window == 8
        await asyncio.gather(*(support.answers(client, [support.start(f"r{n}")]) for n in range(32)))
        assert ((await support.calls(client))["open"] or 0) <= 12
        assert 8 < client.rpc_window <= 12


async def test_calls_that_were_open_together_count_as_one_overload(log: Path) -> None:
    """Of the answers to one burst only the first halves the window, and the next burst halves it again."""
    async with support.pair(log, "--without", "StartSimulations", "--delay", "0.05", window=16) as (_, client):
        for expected in (8, 4):
            burst = [support.start(f"r{n}", abort="RESOURCE_EXHAUSTED", message="busy") for n in range(expected)]
            assert {answer.outcome for answer in await support.answers(client, burst)} == {Outcome.SLOW_DOWN}
            assert client.rpc_window == expected


async def test_a_bad_command_and_a_hanging_call_do_not_shrink_the_window(log: Path) -> None:
    """Neither says anything about the load, but many hanging calls do."""
    async with support.pair(log, "--max-message", "100000", window=16) as (server, client):
        await support.answers(client, [support.start("large", config=b"x" * 99_995)])
        await support.answers(client, [support.start("bad", abort="INVALID_ARGUMENT", message="nonsense")])
        assert client.rpc_window == 16
        async with support.connected(server, deadline=0.5, window=16) as hasty:
            await support.answers(hasty, [support.start("a", hang="yes")])
            assert hasty.rpc_window == 16
            await support.answers(hasty, [support.start(f"r{n}", hang="yes", alone="yes") for n in range(32)])
            assert hasty.rpc_window == 8


async def test_a_call_that_hangs_does_not_delay_others(log: Path) -> None:
    """It is reported as late and its slot goes to another call; its own answer follows."""
    async with support.pair(log, "--without", "StartSimulations", deadline=4, window=1) as (_, client):
        calls: list[Call] = []
        starts = [support.start("hung", hang="yes"), *(support.start(f"r{n}") for n in range(5))]
        await client.start(starts, calls.append, lambda _: True)
        answers = [(answer.simulation_id, answer.outcome) for call in calls for answer in call.answers]
        assert answers[0] == ("hung", Outcome.LATE)
        assert answers[1:6] == [(f"r{n}", Outcome.SUBMITTED) for n in range(5)]
        assert answers[6:] == [("hung", Outcome.UNKNOWN)]


async def test_only_so_many_hanging_calls_are_set_aside(log: Path) -> None:
    """Beyond the limit the client is crowded, so that memory and the server's streams stay bounded."""
    async with support.pair(log, deadline=8, window=2) as (_, client):
        calls: list[Call] = []
        # Its duration defines which calls count as slow.
        await support.answers(client, [support.start("good")])
        starts = [support.start(f"r{n}", hang="yes", alone="yes") for n in range(30)]
        starting = asyncio.create_task(client.start(starts, calls.append, lambda _: True))
        await wait.until(lambda: client.crowded, what="the calls to be set aside")
        late = {answer.simulation_id for call in calls for answer in call.answers}
        assert len(late) == 8
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert not client.crowded


async def test_the_client_knows_why_the_orchestrator_is_away(log: Path) -> None:
    """It reports the address and the problem as soon as it knows them, and nothing once the orchestrator is back."""
    async with support.pair(log) as (program, client):
        await program.kill()
        port = program.target.rpartition(":")[2]
        assert (await support.answers(client, [support.start("a")]))[0].code == "UNAVAILABLE"
        (answer,) = await support.answers(client, [support.start("a")])
        assert [answer.message, client.away] == [f"127.0.0.1:{port}: connection refused"] * 2
        program.start()
        await wait.until(lambda: client.away is None, what="the orchestrator to be back")


async def test_a_full_queue_is_not_taken_for_an_oversized_command(log: Path) -> None:
    """Whatever the orchestrator's message is, the run has to wait, alone and in a batch."""
    async with support.pair(log) as (_, client):
        message = "the run queue exceeds maximum size, try again later"
        full = [support.start(f"r{n}", abort="RESOURCE_EXHAUSTED", message=message) for n in range(2)]
        for starts in (full[:1], full):
            for answer in await support.answers(client, starts):
                assert (answer.outcome, answer.message) == (Outcome.SLOW_DOWN, message)


async def test_a_run_that_must_go_alone_stays_out_of_batches(log: Path) -> None:
    """A run whose batch had no answer is submitted by a single call, so that it can delay no other run again."""
    async with support.pair(log) as (_, client):
        starts = [support.start("a", alone="yes"), *(support.start(f"r{n}") for n in range(4))]
        assert {answer.outcome for answer in await support.answers(client, starts)} == {Outcome.SUBMITTED}
        calls = await support.calls(client)
        assert (calls["StartSimulations"], calls["StartSimulation"]) == (1, 1)
