"""Reading and checking a plan never blocks the event loop, and takes a limited amount of memory.

The quick tests count the calls of the event loop's thread between two of its turns. A single call of a C library can
block the loop as well, so the long tests measure milliseconds, and are the only tests that do. They count the time that
the process itself used: the time during which its threads waited for a processor is subtracted. A measurement that is
too long is repeated, because code that really blocks the loop does so every time.
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
# For how long the loop may be blocked, and how often that is measured before it counts as too long.
MAX_BLOCKED = {"calls": 20_000, "ms": 50}
TRIES = {"calls": 1, "ms": 4}
# The memory that a plan of any size may take, in addition to ten times its size.
SPARE_BYTES = 96 * 1024 * 1024


def unit(request: pytest.FixtureRequest) -> str:
    """Long tests measure milliseconds, the others count calls."""
    return "calls" if request.node.get_closest_marker("long") is None else "ms"


def measured(unit: str, verb: str, bases: Path, *plans: Path) -> dict[Path, dict[str, Any]]:
    """The outcome and the cost of each plan. How long it blocked the loop is the minimum of several runs."""
    best: dict[Path, dict[str, Any]] = {}
    waiting = list(plans)
    for _ in range(TRIES[unit]):
        command = [sys.executable, "-m", "tests.support.held", unit, verb, str(bases), *map(str, waiting)]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr[-2000:]
        costs = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
        for plan, cost in zip(waiting, costs, strict=True):
            earlier = best.setdefault(plan, cost)
            earlier["blocked"] = min(earlier["blocked"], cost["blocked"])
        waiting = [plan for plan in waiting if best[plan]["blocked"] > MAX_BLOCKED[unit]]
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
    [cost] = measured(unit(request), "intake", hostile.parent, hostile).values()
    assert cost["outcome"] == hostile_plans.PLANS[request.node.callspec.params["hostile"]][1]
    assert cost["blocked"] <= MAX_BLOCKED[unit(request)], cost
    assert cost["taken"] < 10 * _unpacked(hostile.read_bytes()) + SPARE_BYTES, cost


@pytest.mark.long
@pytest.mark.parametrize("hostile", [*hostile_plans.WRAPPED_PLANS, "a hundred thousand named points"], indirect=True)
def test_validating_a_hostile_plan_does_not_block_the_event_loop(hostile: Path) -> None:
    """Requests to `validate` delay no others."""
    [cost] = measured("ms", "validate", hostile.parent, hostile).values()
    assert cost["blocked"] <= MAX_BLOCKED["ms"], cost


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
    costs = measured(unit(request), verb, ROOT / bases, *plans)
    assert len(costs) >= 2
    limit = MAX_BLOCKED[unit(request)]
    assert {plan.name: cost for plan, cost in costs.items() if cost["blocked"] > limit} == {}


def test_a_short_plan_may_name_a_long_base_configuration(tmp_path: Path) -> None:
    """Reading it costs no more than if it were part of the plan."""
    (tmp_path / "base.yaml").write_text(f'{{"a":[{",".join(["0.5"] * 300_000)}]}}')
    plan = tmp_path / "plan.yaml"
    plan.write_text("experiment_id: x\nbase_config_file_path: base.yaml\n")
    [cost] = measured("calls", "intake", tmp_path, plan).values()
    assert cost["outcome"] == "accepted"
    assert cost["blocked"] <= MAX_BLOCKED["calls"], cost


def _unpacked(data: bytes) -> int:
    """The size of a plan without its wrapping; if it can't be unwrapped, the size of the message."""
    try:
        return len(plan_codec.unpack(data, hostile_plans.MAX_BYTES))
    except (errors.PlanRejected, errors.Unreadable):
        return len(data)
