"""Large plans are examined in a process of their own, within bounds, and it leaves nothing behind."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.reading import Examiner, process
from ems_worker.service.intake import check
from ems_worker.service.intake.examination import Examination, Examined
from tests.support import wait
from tests.support.desk import Desk, plan

LONG = "x" * 400_000


@pytest.fixture
def begun() -> Any:
    """The processes that a test began, as they are begun."""
    found: list[asyncio.subprocess.Process] = []
    real = asyncio.create_subprocess_exec

    async def begin(*command: str, **options: Any) -> asyncio.subprocess.Process:
        found.append(await real(*command, **options))
        return found[-1]

    with patch.object(asyncio, "create_subprocess_exec", begin):
        yield found


def large(**more: Any) -> dict[str, Any]:
    """A valid plan that is read in a process."""
    made = plan(**more)
    return {**made, "base_config": {**made["base_config"], "long": LONG}}


async def settled(examined: Examined) -> None:
    """Reads a plan and counts its points."""
    await examined.outline()
    async for _ in examined.steps("", check.Platform()):
        pass


def examiner(**changes: Any) -> Examiner:
    return Examiner(**{"read_base": check.refuse_base, "most_bytes": 1_000_000, "max_jobs": 1000, **changes})


async def test_a_large_plan_is_decided_as_a_small_one_is(tmp_path: Path, begun: list[Any]) -> None:
    """Accepted, a duplicate, in conflict by its paths, or rejected with its mistakes in their places."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.submit(large(points=3))
        assert (first["decision"], first["points"]) == ("accepted", 3)
        live = desk.ledger.live("reef")
        assert live is not None
        assert live.plan.base["long"] == LONG
        assert json.loads(live.record.spec.plan) == large(points=3)
        again = json.dumps(large(points=3), indent=1).encode()  # the same bytes wouldn't be read
        assert (await desk.submit(again))["decision"] == "duplicate"
        [conflict] = (await desk.submit(large(points=2)))["errors"]
        assert "parameter_space.food" in conflict["message"]
        [wrong] = (await desk.submit(large(points=3, tgas=[])))["errors"]
        assert (wrong["code"], wrong["suggestion"], wrong["line"]) == ("unknown_key", "tags", 1)
    assert len(begun) == 4
    assert all(one.returncode is not None for one in begun)


async def test_a_small_plan_needs_no_process(tmp_path: Path, begun: list[Any]) -> None:
    """It is read in a thread, which takes milliseconds."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan())
    assert begun == []


async def test_what_a_small_plan_brings_along_may_be_large(tmp_path: Path, begun: list[Any]) -> None:
    """Its base file; the plan that is there already under its id."""
    (tmp_path / "base.yaml").write_text(json.dumps({"food": 1, "long": LONG}))
    named = {key: value for key, value in plan("named").items() if key != "base_config"}
    async with Desk.open(tmp_path / "data", base_config_root=tmp_path) as desk:
        assert (await desk.submit({**named, "base_config_file_path": "base.yaml"}))["decision"] == "accepted"
        await desk.submit(large())
        assert len(begun) == 2
        [conflict] = (await desk.submit(plan()))["errors"]
        assert conflict["message"].endswith("they differ in base_config.long")
        assert len(begun) == 3


async def test_a_limit_below_what_a_process_takes_is_told_without_one(begun: list[Any]) -> None:
    """The worker's own."""
    async with examiner(most_bytes=1000).examine(b"\x1f\x8b") as examined:
        with pytest.raises(errors.Unreadable):
            await examined.outline()
    with pytest.raises(errors.PlanRejected, match="1,000 at most"):
        async with examiner(most_bytes=1000).examine(b"x" * 2000) as examined:
            await examined.outline()
    assert begun == []


async def test_a_plan_that_takes_more_memory_than_there_is_is_rejected() -> None:
    """The process says so, and goes on."""
    greedy = {**plan(), "base_config": {"food": 1, "list": [[n] for n in range(300_000)]}}
    with patch.object(process, "MOST_MEMORY", 4_000_000):
        async with examiner(most_bytes=10_000_000).examine(json.dumps(greedy).encode()) as examined:
            with pytest.raises(errors.PlanRejected, match="takes more than"):
                await examined.outline()


async def test_a_plan_that_kills_its_process_is_unreadable(begun: list[Any]) -> None:
    """And so goes to the dead letters."""
    async with examiner().examine(json.dumps(large()).encode()) as examined:
        await examined.outline()
        begun[0].kill()
        with pytest.raises(errors.Unreadable, match="-9"):
            await examined.base()


async def test_a_process_that_runs_for_too_long_is_ended() -> None:
    """By the time of the processor that it takes."""
    with patch.object(process, "_MOST_SECONDS", 1):
        axis = {"range": {"start": 1, "stop": 1400, "num": 1400}}
        slow = {
            **large(),
            "base_config": {"food": 0, "heat": 0, "long": LONG},
            "parameter_space": {"food": axis, "heat": axis},
            "constraints": ["max(food ** 2.5, heat) < 0"],
        }
        async with examiner().examine(json.dumps(slow).encode()) as examined:
            with pytest.raises(errors.Unreadable, match="ended the process"):
                await settled(examined)


async def test_a_cancelled_examination_leaves_no_process(begun: list[Any]) -> None:
    """Whatever it was doing."""

    async def examine() -> None:
        async with examiner().examine(json.dumps(large()).encode()) as examined:
            await examined.outline()
            while True:
                await examined.base()

    task = asyncio.create_task(examine())
    await wait.until(lambda: begun)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert begun[0].returncode is not None


async def test_no_more_than_two_processes_at_once(begun: list[Any]) -> None:
    """Each may take half a gigabyte."""
    one = examiner()
    data = json.dumps(large()).encode()
    async with one.examine(data) as first, one.examine(data) as second:
        await asyncio.gather(first.outline(), second.outline())
        async with one.examine(data) as third:
            waiting = asyncio.create_task(third.outline())
            await first.base()
            assert len(begun) == 2
            waiting.cancel()
            await asyncio.wait([waiting])
    async with one.examine(data) as fourth:
        await fourth.outline()
    assert len(begun) == 3


async def test_the_process_knows_no_secrets(begun: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the worker and the credentials among them stay with the worker."""
    monkeypatch.setenv("EMS_NATS_PASSWORD", "hidden")
    async with examiner().examine(json.dumps(large()).encode()) as examined:
        await examined.outline()
        environment = await asyncio.to_thread(Path(f"/proc/{begun[0].pid}/environ").read_bytes)
        assert b"hidden" not in environment
        assert os.environ["PATH"].encode() in environment


def test_an_examination_begins_with_its_outline() -> None:
    """Nothing else is known before."""
    one = Examination(b"", process.Bounds(check.refuse_base, 1000, None).tools())
    with pytest.raises(AssertionError):
        one.base()
