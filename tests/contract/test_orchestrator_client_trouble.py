"""The orchestrator's client when the orchestrator is away, hangs, or can't be reached any more."""

import asyncio
from pathlib import Path

import pytest

from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.lifecycle.outcome import Call, Outcome
from ems_worker.core.wire import Capacity
from tests.support import link, servers, wait
from tests.support import orchestrator_client as support


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orchestrator") / "log"


async def test_an_orchestrator_that_is_away_is_unknown_at_once(log: Path) -> None:
    """No exception, no wait for the deadline: it may come back, so commands are sent again later."""
    async with support.pair(log, deadline=600.0) as (program, client):
        await program.kill()
        await wait.until(lambda: not client.ready(), what="the loss")
        answers = await support.answers(client, [support.start("a"), support.start("b")])
        assert {(answer.outcome, answer.code) for answer in answers} == {(Outcome.UNKNOWN, "UNAVAILABLE")}
        assert await client.stop("a") == "UNAVAILABLE"
        assert await client.status(["a"]) == {}


async def test_a_call_that_hangs_ends_at_the_deadline(log: Path) -> None:
    """Each has one, and what it left open is unknown; others go on meanwhile."""
    async with support.pair(log, deadline=2) as (_, client):
        hanging = asyncio.create_task(support.answers(client, [support.start("a", hang="yes")]))
        assert (await support.answers(client, [support.start("b")]))[0].outcome is Outcome.SUBMITTED
        (answer,) = await hanging
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "DEADLINE_EXCEEDED")


async def test_a_connection_that_stays_silent_is_replaced(log: Path) -> None:
    """After three unanswered calls in a row a half-open connection is given up for a new one."""
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


async def test_capacity_is_still_followed_over_a_connection_that_was_replaced(log: Path) -> None:
    """Closing the old one cancels its calls; only whoever follows the capacity may end the following."""
    async with support.pair(log, "--capacity", "5", deadline=0.3) as (_, client):
        told: list[Capacity | None] = []

        async def follow() -> None:
            async for capacity in client.capacity():
                told.append(capacity)  # noqa: PERF401  each as it comes

        following = asyncio.create_task(follow())
        await wait.until(lambda: told, what="the first word")
        for _ in range(3):
            assert (await support.answers(client, [support.start("a", hang="yes")]))[0].code == "DEADLINE_EXCEEDED"
        # Gone with the old connection, and told once more on the new one.
        await wait.until(lambda: len(told) == 3 or following.done(), what="the new connection's word")
        assert [one and one.slots for one in told] == [5, None, 5]
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following


async def test_a_call_whose_connection_is_closed_is_unknown(log: Path) -> None:
    """It is no cancellation of whoever waits for it."""
    async with support.pair(log) as (_, client):
        hanging = asyncio.create_task(support.answers(client, [support.start("a", hang="yes")]))

        async def begun() -> bool:
            return "StartSimulation" in await support.calls(client)

        await wait.until(begun, what="the call")
        await client._channel.close(grace=None)
        (answer,) = await hanging
        assert (answer.outcome, answer.code) == (Outcome.UNKNOWN, "CANCELLED")


async def test_waiting_for_the_window_can_be_cancelled(log: Path) -> None:
    """A place that a cancelled caller waited for, or just got, goes to the next."""
    async with support.pair(log, "--delay", "0.05", window=1) as (_, client):
        tasks = [asyncio.create_task(support.answers(client, [support.start(f"r{n}")])) for n in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1:4]:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, asyncio.CancelledError) for one in done] == [False, True, True, True, False]
        assert (await support.answers(client, [support.start("after")]))[0].outcome is Outcome.SUBMITTED


async def test_overload_shrinks_the_window_and_good_answers_grow_it(log: Path) -> None:
    """Half of it for a batch in which a run was told to wait; then no more calls are open than that."""
    async with support.pair(log, "--delay", "0.02", window=16) as (_, client):
        assert client.rpc_window == 16
        busy = support.start("busy", outcome="REJECTED", code="RESOURCE_EXHAUSTED", words="queue is full")
        await support.answers(client, [support.start("good"), busy])
        assert client.rpc_window == 8
        await asyncio.gather(*(support.answers(client, [support.start(f"r{n}")]) for n in range(32)))
        assert ((await support.calls(client))["open"] or 0) <= 12
        assert 8 < client.rpc_window <= 12


async def test_one_storm_is_one_overload(log: Path) -> None:
    """Calls that were open together met the same one: the first halves the window, the next storm does it again."""
    async with support.pair(log, "--without", "StartSimulations", "--delay", "0.05", window=16) as (_, client):
        for expected in (8, 4):
            storm = [support.start(f"r{n}", abort="RESOURCE_EXHAUSTED", words="busy") for n in range(expected)]
            assert {one.outcome for one in await support.answers(client, storm)} == {Outcome.SLOW_DOWN}
            assert client.rpc_window == expected


async def test_what_is_wrong_with_a_command_says_nothing_about_load(log: Path) -> None:
    """Nor does one call that hangs."""
    async with support.pair(log, "--max-message", "100000", window=16) as (server, client):
        await support.answers(client, [support.start("large", config=b"x" * 99_995)])
        await support.answers(client, [support.start("bad", abort="INVALID_ARGUMENT", words="nonsense")])
        assert client.rpc_window == 16
        async with support.connected(server, deadline=0.5, window=16) as hasty:
            await support.answers(hasty, [support.start("a", hang="yes")])
            assert hasty.rpc_window == 16
            await support.answers(hasty, [support.start(f"r{n}", hang="yes", alone="yes") for n in range(32)])
            assert hasty.rpc_window == 8


async def test_calls_that_hang_hold_up_no_other(log: Path) -> None:
    """They are told to be late, and the window has room again; their answers follow."""
    async with support.pair(log, "--without", "StartSimulations", deadline=4, window=1) as (_, client):
        calls: list[Call] = []
        starts = [support.start("hung", hang="yes"), *(support.start(f"r{n}") for n in range(5))]
        await client.start(starts, calls.append)
        told = [(answer.simulation_id, answer.outcome) for call in calls for answer in call.answers]
        assert told[0] == ("hung", Outcome.LATE)
        assert told[1:6] == [(f"r{n}", Outcome.SUBMITTED) for n in range(5)]
        assert told[6:] == [("hung", Outcome.UNKNOWN)]


async def test_so_many_calls_may_hang_beside_others(log: Path) -> None:
    """Beyond that the window is full, which is told; memory and the server's streams stay bounded."""
    async with support.pair(log, deadline=8, window=2) as (_, client):
        calls: list[Call] = []
        # Its time shows what is long for a call.
        await support.answers(client, [support.start("good")])
        starts = [support.start(f"r{n}", hang="yes", alone="yes") for n in range(30)]
        starting = asyncio.create_task(client.start(starts, calls.append))
        await wait.until(lambda: client.crowded, what="the calls to be set aside")
        late = {answer.simulation_id for call in calls for answer in call.answers}
        assert len(late) == 8
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        assert not client.crowded


async def test_why_it_is_away_is_told(log: Path) -> None:
    """The address and what is wrong there, as soon as that is known; nothing once it is back."""
    async with support.pair(log) as (program, client):
        await program.kill()
        port = program.target.rpartition(":")[2]
        assert (await support.answers(client, [support.start("a")]))[0].code == "UNAVAILABLE"
        (answer,) = await support.answers(client, [support.start("a")])
        assert [answer.message, client.away] == [f"127.0.0.1:{port}: connection refused"] * 2
        program.start()
        await wait.until(lambda: client.away is None, what="the orchestrator to be back")


async def test_a_queue_that_is_full_says_nothing_about_the_size_of_a_command(log: Path) -> None:
    """Whatever its words are, the run waits; alone and in a batch."""
    async with support.pair(log) as (_, client):
        words = "the run queue exceeds maximum size, try again later"
        full = [support.start(f"r{n}", abort="RESOURCE_EXHAUSTED", words=words) for n in range(2)]
        for starts in (full[:1], full):
            for answer in await support.answers(client, starts):
                assert (answer.outcome, answer.message) == (Outcome.SLOW_DOWN, words)


async def test_a_run_whose_batch_had_no_answer_goes_alone(log: Path) -> None:
    """One that hangs keeps its neighbours from being answered only once."""
    async with support.pair(log) as (_, client):
        starts = [support.start("a", alone="yes"), *(support.start(f"r{n}") for n in range(4))]
        assert {answer.outcome for answer in await support.answers(client, starts)} == {Outcome.SUBMITTED}
        calls = await support.calls(client)
        assert (calls["StartSimulations"], calls["StartSimulation"]) == (1, 1)
