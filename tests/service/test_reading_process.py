"""Large plans are examined in a separate process, which has limits and always ends."""

import asyncio
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import uvloop

from ems_worker import errors
from ems_worker.reading import Examiner
from ems_worker.reading.process import Allowance
from ems_worker.service.intake import check
from ems_worker.service.intake.examination import Examination, Examined
from tests.support import wait
from tests.support.desk import Desk, plan

LONG = "x" * 400_000

# The handler can't be registered for a test only.
fork: dict[str, Callable[[], None]] = {}
os.register_at_fork(after_in_child=lambda: fork["handler"]() if fork else None)


@pytest.fixture
def started() -> Any:
    """The processes that a test starts, in order."""
    processes: list[subprocess.Popen[bytes]] = []
    real = subprocess.Popen

    def start(*command: Any, **options: Any) -> subprocess.Popen[bytes]:
        processes.append(real(*command, **options))
        return processes[-1]

    with patch.object(subprocess, "Popen", start):
        yield processes


def large(**more: Any) -> dict[str, Any]:
    """A valid plan that is read in a process."""
    small = plan(**more)
    return {**small, "base_config": {**small["base_config"], "long": LONG}}


async def settled(examined: Examined) -> None:
    """Reads a plan and counts its points."""
    await examined.outline()
    async for _ in examined.steps("", check.Platform()):
        pass


def examiner(**changes: Any) -> Examiner:
    return Examiner(**{"read_base": check.refuse_base, "max_bytes": 1_000_000, "max_jobs": 1000, **changes})


async def test_a_large_plan_gets_the_same_decisions_as_a_small_one(tmp_path: Path, started: list[Any]) -> None:
    """It is accepted, a duplicate, in conflict at the differing paths, or rejected with the problems' positions."""
    async with Desk.open(tmp_path) as desk:
        first = await desk.submit(large(points=3))
        assert (first["decision"], first["points"]) == ("accepted", 3)
        live = desk.ledger.live("reef")
        assert live is not None
        assert live.plan.base["long"] == LONG
        assert json.loads(live.record.spec.plan) == large(points=3)
        again = json.dumps(large(points=3), indent=1).encode()  # the same bytes would be a duplicate without being read
        assert (await desk.submit(again))["decision"] == "duplicate"
        [conflict] = (await desk.submit(large(points=2)))["errors"]
        assert "parameter_space.food" in conflict["message"]
        [wrong] = (await desk.submit(large(points=3, tgas=[])))["errors"]
        assert (wrong["code"], wrong["suggestion"], wrong["line"]) == ("unknown_key", "tags", 1)
    assert len(started) == 4
    assert all(process.returncode is not None for process in started)


async def test_a_small_plan_needs_no_process(tmp_path: Path, started: list[Any]) -> None:
    """It is read in a thread, which takes milliseconds."""
    async with Desk.open(tmp_path) as desk:
        await desk.submit(plan())
    assert started == []


async def test_a_small_plan_that_involves_large_data_is_read_in_a_process(tmp_path: Path, started: list[Any]) -> None:
    """The base file may be large, or the plan of the existing experiment with the same id."""
    (tmp_path / "base.yaml").write_text(json.dumps({"food": 1, "long": LONG}))
    named = {key: value for key, value in plan("named").items() if key != "base_config"}
    async with Desk.open(tmp_path / "data", base_config_root=tmp_path) as desk:
        assert (await desk.submit({**named, "base_config_file_path": "base.yaml"}))["decision"] == "accepted"
        await desk.submit(large())
        assert len(started) == 2
        [conflict] = (await desk.submit(plan()))["errors"]
        assert conflict["message"].endswith("they differ in base_config.long")
        assert len(started) == 3


async def test_a_plan_over_a_small_limit_is_refused_without_a_process(started: list[Any]) -> None:
    """The limit of the worker may be below the size at which plans are read in a process."""
    async with examiner(max_bytes=1000).examine(b"\x1f\x8b") as examined:
        with pytest.raises(errors.Unreadable):
            await examined.outline()
    with pytest.raises(errors.PlanRejected, match="at most 1,000"):
        async with examiner(max_bytes=1000).examine(b"x" * 2000) as examined:
            await examined.outline()
    assert started == []


async def test_a_plan_that_needs_too_much_memory_is_rejected() -> None:
    """The process reports it and continues."""
    greedy = {**plan(), "base_config": {"food": 1, "list": [[n] for n in range(300_000)]}}
    limited = examiner(max_bytes=10_000_000, allowance=Allowance(memory_bytes=4_000_000))
    async with limited.examine(json.dumps(greedy).encode()) as examined:
        with pytest.raises(errors.PlanRejected, match="takes more than 3 MB"):
            await examined.outline()


async def test_a_plan_that_kills_its_process_is_unreadable(started: list[Any]) -> None:
    """Unreadable messages go to the dead letters."""
    async with examiner().examine(json.dumps(large()).encode()) as examined:
        await examined.outline()
        started[0].kill()
        with pytest.raises(errors.Unreadable, match="-9"):
            await examined.base()


async def test_a_process_that_uses_too_much_processor_time_is_ended() -> None:
    """Its plan is unreadable."""
    axis = {"range": {"start": 1, "stop": 1400, "num": 1400}}
    slow = {
        **large(),
        "base_config": {"food": 0, "heat": 0, "long": LONG},
        "parameter_space": {"food": axis, "heat": axis},
        "constraints": ["max(food ** 2.5, heat) < 0"],
    }
    async with examiner(allowance=Allowance(cpu_seconds=1)).examine(json.dumps(slow).encode()) as examined:
        with pytest.raises(errors.Unreadable, match="ended with exit code -9"):
            await settled(examined)


async def test_a_cancelled_examination_leaves_no_process(started: list[Any]) -> None:
    """The process is killed whatever it is doing."""

    async def examine() -> None:
        async with examiner().examine(json.dumps(large()).encode()) as examined:
            await examined.outline()
            while True:
                await examined.base()

    task = asyncio.create_task(examine())
    await wait.until(lambda: started)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert started[0].returncode is not None


def test_no_code_of_the_worker_runs_in_the_process() -> None:
    """The handlers of a fork would run among locks of threads that the child doesn't have; gRPC's sometimes crash."""

    async def examine() -> None:
        async with examiner().examine(json.dumps(large()).encode()) as examined:
            await examined.outline()

    with (
        patch.dict(fork, handler=lambda: os._exit(1)),
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(examine())


async def test_at_most_two_processes_run_at_once(started: list[Any]) -> None:
    """A third examination waits, because each process may use half a gigabyte."""
    shared = examiner()
    data = json.dumps(large()).encode()
    async with shared.examine(data) as first, shared.examine(data) as second:
        await asyncio.gather(first.outline(), second.outline())
        async with shared.examine(data) as third:
            waiting = asyncio.create_task(third.outline())
            await first.base()
            assert len(started) == 2
            waiting.cancel()
            await asyncio.wait([waiting])
    async with shared.examine(data) as fourth:
        await fourth.outline()
    assert len(started) == 3


async def test_the_process_has_no_settings_of_the_worker(started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its environment has no EMS_ variables, some of which are credentials."""
    monkeypatch.setenv("EMS_NATS_PASSWORD", "hidden")
    async with examiner().examine(json.dumps(large()).encode()) as examined:
        await examined.outline()
        environment = await asyncio.to_thread(Path(f"/proc/{started[0].pid}/environ").read_bytes)
        assert b"hidden" not in environment
        assert os.environ["PATH"].encode() in environment


def test_an_examination_begins_with_its_outline() -> None:
    """Calling another method first is a programming error."""
    examination = Examination(b"", examiner().options.tools())
    with pytest.raises(AssertionError, match="outline comes first"):
        examination.base()
