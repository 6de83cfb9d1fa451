"""The orchestrator's client against a server in another process that answers as it is told."""

import asyncio
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest

from ems_worker.adapters.orchestrator import Orchestrator
from ems_worker.core.lifecycle.outcome import Answer, Outcome
from ems_worker.core.lifecycle.run import ErrorKind, RunEvent
from ems_worker.core.wire import Capacity
from tests.support import orchestrator_client as support
from tests.support import servers, wait

BATCH, SINGLE = "StartSimulations", "StartSimulation"


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("orchestrator") / "log"


def _outcomes(answers: Sequence[Answer]) -> list[tuple[str, str, str, str]]:
    return [(one.simulation_id, one.outcome.value, one.code, one.message) for one in answers]


async def test_a_batch_is_one_call_and_its_answers_come_in_order(log: Path) -> None:
    """Each command has its own answer, whatever became of its neighbours and in whatever order they were told."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client,
            [
                support.start("a", outcome="ACCEPTED"),
                support.start("b", outcome="ALREADY_EXISTS"),
                support.start("c", outcome="REJECTED", code="INVALID_ARGUMENT", words="no such species"),
                support.start("d", outcome="REJECTED", code="RESOURCE_EXHAUSTED", words="queue is full"),
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
async def test_a_single_calls_status_is_its_answer(log: Path, code: str, outcome: Outcome) -> None:
    """The code's meaning is the table's, the words are the orchestrator's."""
    async with support.pair(log) as (_, client):
        (answer,) = await support.answers(client, [support.start("a", abort=code, words="because")])
        assert answer == Answer("a", outcome, code, "because")


async def test_without_batches_commands_go_one_by_one(log: Path) -> None:
    """UNIMPLEMENTED is remembered: the batch is tried once; no more calls are open than the window has room for."""
    async with support.pair(log, "--without", BATCH, "--delay", "0.02", window=8) as (_, client):
        for _ in range(2):
            answers = await support.answers(client, [support.start(f"r{n}") for n in range(40)])
            assert [answer.simulation_id for answer in answers] == [f"r{n}" for n in range(40)]
            assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        calls = await support.calls(client)
        assert (calls[BATCH], calls[SINGLE], calls["open"]) == (1, 80, 8)


async def test_batches_are_asked_for_again_after_a_restart(log: Path) -> None:
    """What came back may be a newer orchestrator."""
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


async def test_a_batch_refused_as_a_whole_blames_only_the_guilty(log: Path) -> None:
    """A permanent error for a whole batch doesn't say which run is wrong: each is asked for alone."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client, [support.start("good"), support.start("bad", abort="INVALID_ARGUMENT", words="nonsense")]
        )
        assert _outcomes(answers) == [
            ("good", "submitted", "OK", ""),
            ("bad", "refused", "INVALID_ARGUMENT", "nonsense"),
        ]


async def test_a_batch_that_failed_otherwise_is_unknown_for_all(log: Path) -> None:
    """They may have arrived: whoever asks sends them again."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(
            client, [support.start("a"), support.start("b", abort="INTERNAL", words="oops")]
        )
        assert {(answer.outcome, answer.code) for answer in answers} == {(Outcome.UNKNOWN, "INTERNAL")}


async def test_batches_stay_under_the_message_limit(log: Path) -> None:
    """Twelve megabytes of configurations go in several calls, none refused."""
    async with support.pair(log) as (_, client):
        answers = await support.answers(client, [support.start(f"r{n}", config=b"x" * 1_000_000) for n in range(12)])
        assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 3


async def test_batches_have_a_bounded_number_of_commands(log: Path) -> None:
    """Six hundred small commands are three calls."""
    async with support.pair(log) as (_, client):
        await support.answers(client, [support.start(f"r{n}") for n in range(600)])
        assert (await support.calls(client))[BATCH] == 3


async def test_a_lower_limit_is_learnt_from_the_refusal(log: Path) -> None:
    """The batch is split by the limit that the refusal names; the next is split before it is sent."""
    async with support.pair(log, "--max-message", "100000") as (_, client):
        for round_ in range(2):
            answers = await support.answers(
                client, [support.start(f"r{round_}-{n}", config=b"x" * 30_000) for n in range(9)]
            )
            assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 3 + 3


async def test_one_command_over_the_limit_is_refused_and_not_slowed_down(log: Path) -> None:
    """RESOURCE_EXHAUSTED for its size would never end; its neighbours are submitted."""
    async with support.pair(log, "--max-message", "100000") as (_, client):
        answers = await support.answers(client, [support.start("large", config=b"x" * 200_000), support.start("small")])
        assert [answer.outcome for answer in answers] == [Outcome.REFUSED, Outcome.SUBMITTED]
        assert "and the orchestrator takes 100000" in answers[0].message

        (answer,) = await support.answers(client, [support.start("huge", config=b"x" * 5_000_000)])
        assert answer.outcome is Outcome.REFUSED


async def test_capacity_is_followed(log: Path) -> None:
    """Every change is told, and the message limit that comes with it is kept to."""
    async with support.pair(log, "--capacity", "4", "--capacity", "8/50000", "--max-message", "60000") as (_, client):
        changes = client.capacity()
        assert await anext(changes) == Capacity(4, 0, "m1")
        assert await anext(changes) == Capacity(8, 50_000, "m1")
        answers = await support.answers(client, [support.start(f"r{n}", config=b"x" * 20_000) for n in range(4)])
        assert {answer.outcome for answer in answers} == {Outcome.SUBMITTED}
        assert (await support.calls(client))[BATCH] == 2
        await changes.aclose()


async def test_an_orchestrator_that_tells_no_capacity_is_none(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told once, however often it is asked again."""
    monkeypatch.setattr("ems_worker.adapters.orchestrator.capacity._UNIMPLEMENTED_PAUSE_SECONDS", 0.01)
    async with support.pair(log, "--without", "WatchCapacity") as (_, client):
        changes = client.capacity()
        assert await anext(changes) is None
        next_change = asyncio.ensure_future(anext(changes))

        async def asked_again() -> bool:
            return ((await support.calls(client))["WatchCapacity"] or 0) > 3

        await wait.until(asked_again, what="more questions")
        assert not next_change.done()
        next_change.cancel()
        await asyncio.gather(next_change, return_exceptions=True)
        await changes.aclose()


async def test_capacity_ends_and_comes_back_with_the_orchestrator(log: Path) -> None:
    """None while it is away; the same capacity is told again after that."""
    async with support.pair(log, "--capacity", "4") as (program, client):
        changes = client.capacity()
        assert (await anext(changes)) == Capacity(4, 0, "m1")
        await program.kill()
        assert await anext(changes) is None
        program.start()
        assert (await anext(changes)) == Capacity(4, 0, "m1")
        await changes.aclose()


async def test_the_trace_goes_beside_the_commands(log: Path) -> None:
    """As metadata, of single calls and of batches; a batch is of one trace."""
    one, other = (f"00-{digit * 32}-{digit * 16}-01" for digit in "12")
    starts = [
        dataclasses.replace(support.start(f"r{n}"), traceparent=trace)
        for n, trace in enumerate((one, one, other, None))
    ]
    async with support.pair(log) as (_, client):
        assert len(await support.answers(client, starts)) == 4
        assert len(await support.answers(client, starts[:1])) == 1
        counts = await support.calls(client)
    assert counts["StartSimulations"] == 3
    assert counts[f"StartSimulations {one}"] == counts[f"StartSimulations {other}"] == 1
    assert (counts["StartSimulation"], counts[f"StartSimulation {one}"]) == (1, 1)


async def test_stop_gives_the_code(log: Path) -> None:
    """OK, the orchestrator's refusal, or that it doesn't implement it."""
    async with support.pair(log) as (_, client):
        assert await client.stop("a") == "OK"
        assert await client.stop("unknown") == "NOT_FOUND"
    async with support.pair(log, "--without", "ControlSimulation") as (_, client):
        assert await client.stop("a") == "UNIMPLEMENTED"


async def test_status_is_told_as_signals(log: Path) -> None:
    """As an event would say it; a run that isn't known is None, a state that isn't is left out."""
    async with support.pair(log) as (_, client):
        names = ["queued-1", "running-1", "paused-1", "completed-1", "failed-1", "not_found-1", "unspecified-1"]
        found = await client.status(names)
        assert found is not None
        assert found.keys() == set(names) - {"unspecified-1"}
        assert found["not_found-1"] is None
        signals = {name: signal for name, signal in found.items() if signal is not None}
        assert signals["queued-1"].event is RunEvent.ACCEPT
        assert signals["running-1"].event is signals["paused-1"].event is RunEvent.START
        assert signals["running-1"].started_ms == 1_700_000_000_000
        done, failed = signals["completed-1"], signals["failed-1"]
        assert (done.event, done.metrics) == (RunEvent.COMPLETE, {"population": 7.0, "broken": None})
        assert (done.artifacts, done.finished_ms) == ({"series": "file:///series.csv"}, 1_700_000_001_000)
        assert (failed.event, failed.error_kind, failed.retryable) == (RunEvent.FAIL, ErrorKind.INFRASTRUCTURE, True)
        assert (failed.message, failed.model_version) == ("the node died", "m1")

        many = await client.status([f"running-{n}" for n in range(2500)])
        assert many is not None
        assert len(many) == 2500
        assert (await support.calls(client))["GetSimulationStatus"] == 4
    async with support.pair(log, "--without", "GetSimulationStatus") as (_, client):
        assert await client.status(["a"]) is None
