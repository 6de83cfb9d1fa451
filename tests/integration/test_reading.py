"""Reading and checking a plan never blocks the event loop, and takes a limited amount of memory.

The quick tests count the steps of the event loop's thread. A single call of a C library can block the loop as well, so
the long tests also measure time, and are the only tests that do. They count the time that the process itself used: the
time during which its threads waited for a processor is subtracted. A measurement that is too long is repeated, because
code that really blocks the loop does so every time.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker import errors
from ems_worker.adapters import plan_codec
from tests.support import hostile_plans

ROOT = Path(__file__).parents[2]
MOST_STEPS = 20_000
MOST_MS = 50
TRIES = 4
# The memory that a plan of any size may take, in addition to ten times its size.
SPARE_BYTES = 96 * 1024 * 1024


def measured(verb: str, bases: Path, *plans: Path, timed: bool = True) -> dict[Path, dict[str, Any]]:
    """The outcome and the cost of each plan. The time that it blocked the loop is the minimum of several runs.

    Unless `timed`, there is a single run, and the time is not reported.
    """
    best: dict[Path, dict[str, Any]] = {}
    waiting = list(plans)
    for _ in range(TRIES if timed else 1):
        command = [sys.executable, "-m", "tests.support.held", verb, str(bases), *map(str, waiting)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr[-2000:]
        lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        for plan, found in zip(waiting, lines, strict=True):
            earlier = best.setdefault(plan, found)
            earlier["held_ms"] = min(earlier["held_ms"], found["held_ms"]) if timed else 0
        waiting = [plan for plan in waiting if best[plan]["held_ms"] > MOST_MS]
        if not waiting:
            break
    return best


@pytest.fixture
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The file of a hostile plan, deleted after the test: together they have half a gigabyte."""
    path = tmp_path / "plan"
    path.write_bytes(hostile_plans.PLANS[request.param][0]())
    yield path
    path.unlink()


# These plans are in every test run; the others take a quarter of an hour.
QUICK = (
    "4,000 keys and 40 misspelt paths",
    "16 KB of gzip around 16 MB",
    "many yaml values",
)


ALL = [name if name in QUICK else pytest.param(name, marks=pytest.mark.long) for name in hostile_plans.PLANS]


@pytest.mark.parametrize("hostile", ALL, indirect=True)
def test_a_hostile_plan_has_a_limited_cost(hostile: Path, request: pytest.FixtureRequest) -> None:
    """It doesn't block the event loop, and takes less memory than 96 MB plus ten times its unpacked size."""
    timed = request.node.get_closest_marker("long") is not None
    [found] = measured("intake", hostile.parent, hostile, timed=timed).values()
    assert found["outcome"] == hostile_plans.PLANS[request.node.callspec.params["hostile"]][1]
    assert found["steps"] <= MOST_STEPS, found
    assert found["held_ms"] <= MOST_MS, found
    assert found["taken"] < 10 * _unpacked(hostile.read_bytes()) + SPARE_BYTES, found


@pytest.mark.long
@pytest.mark.parametrize("hostile", [*hostile_plans.WRAPPED_PLANS, "a hundred thousand named points"], indirect=True)
def test_validating_a_hostile_plan_does_not_block_the_event_loop(hostile: Path) -> None:
    """Requests to `validate` delay no others."""
    [found] = measured("validate", hostile.parent, hostile).values()
    assert found["steps"] <= MOST_STEPS, found
    assert found["held_ms"] <= MOST_MS, found


@pytest.mark.parametrize("verb", ["intake", "validate"])
@pytest.mark.parametrize(
    ("bases", "pattern"),
    [("examples", "*.yaml"), pytest.param("tests/plans", "invalid/*.yaml", marks=pytest.mark.long)],
)
def test_ordinary_plans_do_not_block_the_event_loop(
    verb: str, bases: str, pattern: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Ordinary plans are the examples, and all invalid plans of the tests."""
    plans = []
    for path in sorted((ROOT / bases).glob(pattern)):
        plans.append(tmp_path / path.name)
        plans[-1].write_bytes(path.read_bytes().replace(b"../base.yaml", b"base.yaml"))
    found = measured(verb, ROOT / bases, *plans, timed=request.node.get_closest_marker("long") is not None)
    assert len(found) >= 2
    assert {plan.name: one for plan, one in found.items() if one["steps"] > MOST_STEPS} == {}
    assert {plan.name: one for plan, one in found.items() if one["held_ms"] > MOST_MS} == {}


def test_a_short_plan_may_name_a_long_base_configuration(tmp_path: Path) -> None:
    """Reading it costs no more than if it were part of the plan."""
    (tmp_path / "base.yaml").write_text(f'{{"a":[{",".join(["0.5"] * 300_000)}]}}')
    plan = tmp_path / "plan.yaml"
    plan.write_text("experiment_id: x\nbase_config_file_path: base.yaml\n")
    [found] = measured("intake", tmp_path, plan, timed=False).values()
    assert found["outcome"] == "accepted"
    assert found["steps"] <= MOST_STEPS, found


def _unpacked(data: bytes) -> int:
    """The size of a plan without its wrapping; if it can't be unwrapped, the size of the message."""
    try:
        return len(plan_codec.unpack(data, hostile_plans.MAX_BYTES))
    except (errors.PlanRejected, errors.Unreadable):
        return len(data)
