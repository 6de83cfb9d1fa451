"""Faults of the orchestrator other than crashes: it refuses calls, doesn't answer, or implements only single starts."""

import json
from pathlib import Path
from typing import Any

import nats.js.errors
import pytest

from tests.support import invariants, stage, wait, whole

BATCHES_AND_SINGLE_CALLS = pytest.mark.parametrize(
    "able", [[], pytest.param(["--no-batch"], marks=pytest.mark.long)], ids=["batches", "single calls"]
)


async def gauge(theatre: stage.Stage, name: str) -> float:
    """The value of one of the worker's metrics."""
    _, text = await theatre.worker.ask("/metrics")
    return float(next(line.split(" ")[1] for line in text.splitlines() if line.startswith(f"{name} ")))


@BATCHES_AND_SINGLE_CALLS
async def test_many_refused_calls_cost_only_time(tmp_path: Path, able: list[str]) -> None:
    """Every other start call is refused. The window of calls shrinks, and each job ends with its first attempt."""
    async with stage.Stage(tmp_path, "--slots", "40", "--busy", "2", *able) as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("storm", 120))
        await theatre.ended(60)

        async def fewer() -> bool:
            return await gauge(theatre, "ems_rpc_window") < 64

        await wait.until(fewer, what="a smaller window of calls")
        await theatre.stop()
        evidence = await theatre.check(invariants.Expected(window=40 if not able else 256))
        assert [row["attempts"] for row in evidence.runs] == [1] * 120


@pytest.mark.long
async def test_commands_whose_answers_are_lost_are_sent_again_under_the_same_ids(tmp_path: Path) -> None:
    """The orchestrator has each run once, and each ends once."""
    settings = {"EMS_RPC_DEADLINE_SECONDS": "0.5", "EMS_RUN_WINDOW": "50"}
    async with stage.Stage(tmp_path, "--delay", "4", proxied=True, **settings) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        theatre.to_orchestrator.down.drop()
        await theatre.publish(whole.plan("mute", 50))
        await wait.until(lambda: len(theatre.oracle.accepted()) >= 50, what="commands to arrive")
        theatre.to_orchestrator.heal()
        await theatre.ended()
        await theatre.stop()
        evidence = await theatre.check(invariants.Expected(window=50))
        assert "duplicate" in {call[0] for call in evidence.calls}


async def status(theatre: stage.Stage, experiment_id: str) -> dict[str, Any]:
    """The last published status; one without counts if there is none yet."""
    async with theatre.client() as client:
        try:
            message = await client.jetstream().get_last_msg("EMS_STATUS", f"ems.experiment.status.{experiment_id}")
        except nats.js.errors.Error:
            return {"counts": {}, "reason": None}
    document: dict[str, Any] = json.loads(message.data or b"{}")
    return document


@pytest.mark.parametrize(
    ("able", "window"),
    [
        (["--no-batch"], "64"),
        pytest.param(["--no-batch"], "4", marks=pytest.mark.long),
        pytest.param([], "64", marks=pytest.mark.long),
    ],
    ids=["single", "narrow", "batches"],
)
async def test_starts_that_are_never_answered_delay_no_other(tmp_path: Path, able: list[str], window: str) -> None:
    """Two of a hundred hang. All others complete, and the status has the number of starts without an answer."""
    # Which run of a batch hangs isn't known before the batch has reached its deadline.
    settings: dict[str, Any] = {
        "EMS_RPC_DEADLINE_SECONDS": "600" if able else "4",
        "EMS_RPC_WINDOW": window,
        "EMS_RUN_WINDOW": "200",
    }
    hung = ["--hang", "*-p000[0-5]07-*", "--hang", "*-p000[0-5]57-*"]
    async with stage.Stage(tmp_path, "--slots", "200", *able, *hung, **settings) as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("hang", 600))

        async def all_others() -> bool:
            counts = (await status(theatre, "hang"))["counts"]
            return (counts.get("completed"), counts.get("submitting")) == (588, 12)

        await wait.until(all_others, timeout=60, what="all others to complete")

        async def reported() -> bool:
            return "12 starts without an answer" in str((await status(theatre, "hang"))["reason"])

        await wait.until(reported, what="the reason")
        await theatre.stop()


@BATCHES_AND_SINGLE_CALLS
@pytest.mark.long
async def test_late_answers_cost_no_attempt(tmp_path: Path, able: list[str]) -> None:
    """Every call takes longer than its deadline, but its runs start. The status has the reason."""
    settings: dict[str, Any] = {"EMS_RPC_DEADLINE_SECONDS": "1", "EMS_RUN_WINDOW": "50"}
    slow = ["--answer-after", "3", "--delay", "1"]
    async with stage.Stage(tmp_path, "--slots", "50", *slow, *able, **settings) as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("slow", 300))

        async def reported() -> bool:
            _, ready = await theatre.worker.ask("/readyz")
            return "slow to answer" in ready and "slow to answer" in str((await status(theatre, "slow"))["reason"])

        await wait.until(reported, what="the reason")
        await theatre.ended(60)
        assert await gauge(theatre, "ems_rpc_window") >= 16
        await theatre.stop()
        evidence = await theatre.check(invariants.Expected(window=50))
        assert [row["attempts"] for row in evidence.runs] == [1] * 300


async def test_an_unreachable_orchestrator_is_reported_with_the_cause(tmp_path: Path) -> None:
    """The probe and the status of each experiment have the cause until the orchestrator is back."""
    async with stage.Stage(tmp_path) as theatre:
        theatre.worker.start()
        await theatre.worker.ready()
        await theatre.oracle.kill()
        await theatre.publish(whole.plan("away", 2))
        cause = f"the orchestrator can't be reached: {theatre.oracle.target}: connection refused"

        async def reported() -> bool:
            code, ready = await theatre.worker.ask("/readyz")
            return code == 503 and cause in ready and (await status(theatre, "away"))["reason"] == cause

        await wait.until(reported, what="the cause")
        theatre.oracle.start()
        await theatre.ended()
        await wait.until(lambda: _ready(theatre), what="the worker to be ready again")
        assert (await status(theatre, "away"))["reason"] is None


async def _ready(theatre: stage.Stage) -> bool:
    return (await theatre.worker.ask("/readyz"))[0] == 200


@pytest.mark.parametrize("turn", [0, *(pytest.param(turn, marks=pytest.mark.long) for turn in range(1, 5))])
async def test_a_shutdown_during_single_starts_is_orderly(tmp_path: Path, turn: int) -> None:
    """The exit code is 0 and there is no traceback, although calls are open and others wait for the window."""
    settings: dict[str, Any] = {"EMS_RPC_WINDOW": str(2**turn)}
    async with stage.Stage(tmp_path, "--no-batch", "--answer-after", "0.05", **settings) as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("stop", 400))
        await wait.until(lambda: len(theatre.oracle.accepted()) > 8, what="some starts")
        await theatre.stop()
        assert not [line for line in theatre.worker.lines() if line["event"] == "worker.fatal"]
