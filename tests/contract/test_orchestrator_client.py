"""The orchestrator's client against a scripted server in another process."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

from ems_worker.adapters.orchestrator import Orchestrator, capacity
from ems_worker.core.lifecycle.outcome import Answer, Outcome
from ems_worker.core.lifecycle.run import ErrorKind
from ems_worker.core.lifecycle.transitions import RunEvent
from ems_worker.core.wire import Capacity, Control, Controlled
from tests.support import orchestrator_client as support
from tests.support import servers, wait

BATCH, SINGLE = "StartSimulations", "StartSimulation"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orchestrator") / "log"


def _outcomes(answers: Sequence[Answer]) -> list[tuple[str, str, str, str]]:
    return [(answer.simulation_id, answer.outcome.value, answer.code, answer.message) for answer in answers]


async def test_a_batch_is_one_call_and_its_answers_come_in_order(log: Path) -> None:
    """Each command has its own answer, whatever the other answers are and in whatever order they arrive."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client,
            [
                support.start("a", outcome="ACCEPTED"),
                support.start("b", outcome="ALREADY_EXISTS"),
                support.start("c", outcome="REJECTED", code="INVALID_ARGUMENT", message="no such species"),
                support.start("d", outcome="REJECTED", code="RESOURCE_EXHAUSTED", message="queue is full"),
                support.start("e", silent="yes"),
                support.start("f"),
                support.start("g", outcome="REJECTED"),
                support.start("h", code="PERMISSION_DENIED"),
            ],
        )
        assert _outcomes(answers) == [
            ("a", "submitted", "OK", ""),
            ("b", "submitted", "ALREADY_EXISTS", ""),
            ("c", "refused", "INVALID_ARGUMENT", "no such species"),
            ("d", "slow_down", "RESOURCE_EXHAUSTED", "queue is full"),
            ("e", "unknown", "UNKNOWN", "the orchestrator's reply to the batch doesn't mention this run"),
            ("f", "submitted", "OK", ""),
            ("g", "unknown", "UNKNOWN", ""),
            ("h", "halt", "PERMISSION_DENIED", ""),
        ]
        assert (await support.calls(client))[BATCH] == 1


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        ("ALREADY_EXISTS", Outcome.SUBMITTED),
        ("INVALID_ARGUMENT", Outcome.REFUSED),
        ("FAILED_PRECONDITION", Outcome.REFUSED),
        ("OUT_OF_RANGE", Outcome.REFUSED),
        ("RESOURCE_EXHAUSTED", Outcome.SLOW_DOWN),
        ("UNAUTHENTICATED", Outcome.HALT),
        ("UNIMPLEMENTED", Outcome.HALT),
        ("INTERNAL", Outcome.UNKNOWN),
        ("ABORTED", Outcome.UNKNOWN),
    ],
)
async def test_the_status_of_a_single_call_is_its_answer(log: Path, code: str, outcome: Outcome) -> None:
    """The outcome is the meaning of the status code, and the message is the orchestrator's."""
    async with support.pair(log) as (_, client):
        (answer,) = await support.answers(client, [support.start("a", abort=code, message="because")])
        assert answer == Answer("a", outcome, code, "because")


async def test_without_batches_commands_go_one_by_one(log: Path) -> None:
    """A batch is tried only once, and no more single calls are open than the window has slots."""
    async with support.pair(log, "--without", BATCH, "--delay", "0.02", window=8) as (_, client):
        for _ in range(2):
            answers = await support.answers(client, [support.start(f"r{n}") for n in range(40)])
            assert [answer.simulation_id for answer in answers] == [f"r{n}" for n in range(40)]
            assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        calls = await support.calls(client)
        assert (calls[BATCH], calls[SINGLE], calls["open"]) == (1, 80, 8)


async def test_batches_are_tried_again_after_a_restart(log: Path) -> None:
    """The orchestrator that comes back may be a newer one that takes batches."""
    async with servers.GrpcProgram(support.MODULE, ["--without", BATCH], log=log) as old:
        port = int(old.target.rpartition(":")[2])
        async with Orchestrator.connect(old.target) as client:
            await support.answers(client, [support.start("a"), support.start("b")])
            await old.kill()
            answers = await support.answers(client, [support.start("a"), support.start("b")])
            assert {answer.outcome for answer in answers} == {Outcome.UNKNOWN}
            async with servers.GrpcProgram(support.MODULE, [], log=log, port=port):
                await wait.until(client.ready, what="reconnection")
                await support.answers(client, [support.start("a"), support.start("b")])
                assert (await support.calls(client))[BATCH] == 1


async def test_the_runs_of_a_refused_batch_are_submitted_one_by_one(log: Path) -> None:
    """The refusal of a whole batch doesn't say which run caused it, and must not fail the others."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client, [support.start("good"), support.start("bad", abort="INVALID_ARGUMENT", message="nonsense")]
        )
        assert _outcomes(answers) == [
            ("good", "submitted", "OK", ""),
            ("bad", "refused", "INVALID_ARGUMENT", "nonsense"),
        ]


async def test_a_batch_that_fails_otherwise_is_unknown_for_all_its_runs(log: Path) -> None:
    """The commands may have arrived, so the answers are UNKNOWN and the commands can be sent again."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client, [support.start("a"), support.start("b", abort="INTERNAL", message="oops")]
        )
        assert {(answer.outcome, answer.code) for answer in answers} == {(Outcome.UNKNOWN, "INTERNAL")}


async def test_batches_stay_under_the_message_limit(log: Path) -> None:
    """Twelve megabytes of configurations are sent in several calls, and none is refused."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(client, [support.start(f"r{n}", config=b"x" * 1_000_000) for n in range(12)])
        assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 3


async def test_batches_have_a_bounded_number_of_commands(log: Path) -> None:
    """Six hundred small commands are sent in three calls."""
    async with support.pair(log) as (_, client):
        await support.answers(client, [support.start(f"r{n}") for n in range(600)])
        assert (await support.calls(client))[BATCH] == 3


async def test_a_lower_limit_is_learnt_from_a_refusal(log: Path) -> None:
    """The client splits the refused batch by the limit that the refusal names, and the next batch before sending it."""
    async with support.pair(log, "--max-message", "100000") as (_, client):
        for round_ in range(2):
            answers = await support.answers(
                client, [support.start(f"r{round_}-{n}", config=b"x" * 30_000) for n in range(9)]
            )
            assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 3 + 3


async def test_a_learnt_limit_is_forgotten_after_a_restart(log: Path) -> None:
    """The orchestrator that comes back may take larger batches."""
    starts = [support.start(f"r{n}", config=b"x" * 30_000) for n in range(9)]
    async with servers.GrpcProgram(support.MODULE, ["--max-message", "100000"], log=log) as old:
        port = int(old.target.rpartition(":")[2])
        async with Orchestrator.connect(old.target) as client:
            await support.answers(client, starts)
            await old.kill()
            await wait.until(lambda: not client.ready(), what="the loss")
            assert (await client.control("a", Control.STOP)).code == "UNAVAILABLE"
            async with servers.GrpcProgram(support.MODULE, [], log=log, port=port):
                await wait.until(client.ready, what="reconnection")
                await support.answers(client, starts)
                assert (await support.calls(client))[BATCH] == 1


async def test_a_command_over_the_limit_is_refused_and_not_slowed_down(log: Path) -> None:
    """Sending it again can't help although its code is RESOURCE_EXHAUSTED, and the other runs are submitted."""
    async with support.pair(log, "--max-message", "100000") as (_, client):
        answers = await support.answers(client, [support.start("large", config=b"x" * 200_000), support.start("small")])
        assert [answer.outcome for answer in answers] == [Outcome.REFUSED, Outcome.SUBMITTED]
        assert "and the orchestrator takes 100,000" in answers[0].message

        (answer,) = await support.answers(client, [support.start("huge", config=b"x" * 5_000_000)])
        assert answer.outcome is Outcome.REFUSED


async def test_capacity_is_followed(log: Path) -> None:
    """The client yields every change, and keeps to the message limit that comes with it."""
    async with support.pair(log, "--capacity", "4", "--capacity", "8/50000", "--max-message", "60000") as (_, client):
        changes = client.capacity()
        assert await anext(changes) == Capacity(4, 0, "m1")
        assert await anext(changes) == Capacity(8, 50_000, "m1")
        answers = await support.answers(client, [support.start(f"r{n}", config=b"x" * 20_000) for n in range(4)])
        assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 2
        await changes.aclose()


async def test_an_orchestrator_without_capacity_yields_none(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None comes once, however often the client tries the call again."""
    monkeypatch.setattr(capacity, "UNIMPLEMENTED_PAUSE_SECONDS", 0.01)
    async with support.pair(log, "--without", "WatchCapacity") as (_, client):
        changes = client.capacity()
        assert await anext(changes) is None
        next_change = asyncio.ensure_future(anext(changes))

        async def tried_again() -> bool:
            return ((await support.calls(client))["WatchCapacity"] or 0) > 3

        await wait.until(tried_again, what="more calls")
        assert not next_change.done()
        next_change.cancel()
        await asyncio.gather(next_change, return_exceptions=True)
        await changes.aclose()


async def test_a_watch_without_changes_is_repeated_silently(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its deadline an idle watch yields nothing: the orchestrator is still there, and so is its capacity."""
    monkeypatch.setattr(capacity, "WATCH_SECONDS", 0.2)
    async with support.pair(log, "--capacity", "4") as (_, client):
        changes = client.capacity()
        assert await anext(changes) == Capacity(4, 0, "m1")
        next_change = asyncio.ensure_future(anext(changes))

        async def watched_again() -> bool:
            return ((await support.calls(client))["WatchCapacity"] or 0) > 2

        await wait.until(watched_again, what="more watches")
        assert not next_change.done()
        next_change.cancel()
        await asyncio.gather(next_change, return_exceptions=True)
        await changes.aclose()


async def test_capacity_ends_and_comes_back_with_the_orchestrator(log: Path) -> None:
    """The client yields None when the orchestrator goes away, and its capacity again when it is back."""
    async with support.pair(log, "--capacity", "4") as (program, client):
        changes = client.capacity()
        assert (await anext(changes)) == Capacity(4, 0, "m1")
        await program.kill()
        assert await anext(changes) is None
        program.start()
        assert (await anext(changes)) == Capacity(4, 0, "m1")
        await changes.aclose()


async def test_the_trace_is_sent_as_metadata(log: Path) -> None:
    """Single calls and batches carry it, and a batch has only commands of one trace."""
    first, second = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
    starts = [
        replace(support.start(f"r{n}"), traceparent=trace) for n, trace in enumerate((first, first, second, None))
    ]
    async with support.pair(log) as (_, client):
        assert len(await support.answers(client, starts)) == 4
        assert len(await support.answers(client, starts[:1])) == 1
        counts = await support.calls(client)
    assert counts["StartSimulations"] == 3
    assert counts[f"StartSimulations {first}"] == counts[f"StartSimulations {second}"] == 1
    assert (counts["StartSimulation"], counts[f"StartSimulation {first}"]) == (1, 1)


async def test_control_returns_the_status_code(log: Path) -> None:
    """The code is OK, the orchestrator's refusal, or UNIMPLEMENTED. Only the state PAUSED confirms a PAUSE."""
    async with support.pair(log) as (_, client):
        assert await client.control("a", Control.STOP) == Controlled("OK")
        assert await client.control("unknown", Control.STOP) == Controlled("NOT_FOUND")
        assert await client.control("a", Control.PAUSE) == Controlled("OK", paused=True)
        assert await client.control("queued-1", Control.PAUSE) == Controlled("OK", paused=False)
        assert await client.control("a", Control.RESUME) == Controlled("OK", paused=False)
    async with support.pair(log, "--without", "ControlSimulation") as (_, client):
        for action in Control:
            assert await client.control("a", action) == Controlled("UNIMPLEMENTED")


async def test_a_status_is_the_signal_that_an_event_would_give(log: Path) -> None:
    """A run that the orchestrator doesn't know is None, and a run in an unknown state is left out."""
    async with support.pair(log) as (_, client):
        names = ["queued-1", "running-1", "paused-1", "completed-1", "failed-1", "not_found-1", "unspecified-1"]
        statuses = await client.status(names)
        assert statuses is not None
        assert statuses.keys() == set(names) - {"unspecified-1"}
        assert statuses["not_found-1"] is None
        signals = {name: signal for name, signal in statuses.items() if signal is not None}
        assert signals["queued-1"].event is RunEvent.ACCEPT
        assert signals["running-1"].event is signals["paused-1"].event is RunEvent.START
        assert signals["running-1"].started_ms == 1_700_000_000_000
        done, failed = signals["completed-1"], signals["failed-1"]
        assert (done.event, done.metrics) == (RunEvent.COMPLETE, {"population": 7.0, "broken": None})
        assert (done.artifacts, done.finished_ms) == ({"series": "file:///series.csv"}, 1_700_000_001_000)
        assert (failed.event, failed.error_kind, failed.retryable) == (RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, True)
        assert (failed.message, failed.model_version) == ("the node died", "m1")
        assert (failed.host, failed.slot) == ("n17", "3")

        many = await client.status([f"running-{n}" for n in range(2500)])
        assert many is not None
        assert len(many) == 2500
        assert (await support.calls(client))["GetSimulationStatus"] == 4
    async with support.pair(log, "--without", "GetSimulationStatus") as (_, client):
        assert await client.status(["a"]) is None
