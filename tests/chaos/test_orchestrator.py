"""Trouble with the orchestrator that isn't a crash: it turns calls away, doesn't answer, or can do only the least."""

from pathlib import Path

import pytest

from tests.support import invariants, stage, wait, whole


async def gauge(theatre: stage.Stage, name: str) -> float:
    """A metric of the worker's."""
    _, text = await theatre.worker.ask("/metrics")
    return float(next(line.split(" ")[1] for line in text.splitlines() if line.startswith(f"{name} ")))


@pytest.mark.parametrize("able", [[], ["--no-batch"]], ids=["batches", "single calls"])
async def test_storms_of_refusals_cost_time_and_nothing_else(tmp_path: Path, able: list[str]) -> None:
    """Every other start call is turned away: the window of calls shrinks, each job ends at its first attempt."""
    async with stage.Stage(tmp_path, "--slots", "40", "--busy", "2", *able) as theatre:
        theatre.worker.start()
        await theatre.publish(whole.plan("storm", 120))
        await theatre.ended(60)

        async def fewer() -> bool:
            return await gauge(theatre, "ems_rpc_window") < 64

        await wait.until(fewer, what="the window of calls to be told")
        await theatre.stop()
        found = await theatre.check(invariants.Expected(window=40 if not able else 256))
        assert [row["attempts"] for row in found.runs] == [1] * 120


async def test_calls_without_answers_are_sent_again_under_their_ids(tmp_path: Path) -> None:
    """The commands arrive and their answers are lost: the orchestrator has each run once, and each ends once."""
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
        found = await theatre.check(invariants.Expected(window=50))
        assert "duplicate" in {words[0] for words in found.calls}
