"""What reading and checking plans costs others: the event loop is never held, and memory stays within bounds.

These are the only tests that measure time. What counts is what the process itself did: time in which its threads
waited for a processor is taken off, and what seems too long is measured again, as what really holds the loop does so
each time.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ems_worker.adapters import plan_codec
from tests.support import hostile_plans

ROOT = Path(__file__).parents[2]
MOST_MS = 50
TRIES = 4
# What a plan of any size may take, and then ten times its own size.
SPARE_BYTES = 64 * 1024 * 1024


def run(module: str, *arguments: str | Path) -> list[str]:
    """The lines that one of the measuring programs prints."""
    command = [sys.executable, "-m", f"tests.support.{module}", *map(str, arguments)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return ended.stdout.splitlines()


def measured(bases: Path, *plans: Path) -> list[dict[str, Any]]:
    """What each of the plans came to, and how long each held the loop, the best of some tries."""
    best: dict[Path, dict[str, Any]] = {}
    waiting = list(plans)
    for _ in range(TRIES):
        for plan, line in zip(waiting, (line for line in run("held", bases, *waiting) if line[0] == "{"), strict=True):
            found = json.loads(line)
            earlier = best.setdefault(plan, found)
            for key in ("intake_ms", "validate_ms"):
                earlier[key] = min(earlier[key], found[key])
        waiting = [plan for plan, one in best.items() if max(one["intake_ms"], one["validate_ms"]) > MOST_MS]
        if not waiting:
            break
    return [best[plan] for plan in plans]


@pytest.fixture
def hostile(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """The file of a hostile plan, gone after the test: all of them are half a gigabyte."""
    path = tmp_path / "plan"
    path.write_bytes(hostile_plans.PLANS[request.param][0]())
    yield path
    path.unlink()


@pytest.mark.parametrize("hostile", hostile_plans.PLANS, indirect=True)
def test_a_hostile_plan_does_not_hold_the_event_loop(hostile: Path, request: pytest.FixtureRequest) -> None:
    """Neither at intake nor at `validate`, whatever becomes of it; and it becomes what it should."""
    [found] = measured(hostile.parent, hostile)
    assert found["outcome"] == hostile_plans.PLANS[request.node.callspec.params["hostile"]][1]
    assert found["valid"] == ("unreadable" if found["outcome"] == "dead" else found["outcome"])
    assert max(found["intake_ms"], found["validate_ms"]) <= MOST_MS, found


@pytest.mark.parametrize(("bases", "pattern"), [("examples", "*.yaml"), ("tests/plans", "invalid/*.yaml")])
def test_ordinary_plans_do_not_hold_the_event_loop(bases: str, pattern: str, tmp_path: Path) -> None:
    """The examples, and every plan with a mistake that the tests know."""
    plans = [tmp_path / path.name for path in sorted((ROOT / bases).glob(pattern))]
    assert plans
    for plan in plans:
        text = next((ROOT / bases).glob(f"**/{plan.name}")).read_bytes()
        plan.write_bytes(text.replace(b"../base.yaml", b"base.yaml"))
    found = {plan.name: one for plan, one in zip(plans, measured(ROOT / bases, *plans), strict=True)}
    assert {name: one for name, one in found.items() if max(one["intake_ms"], one["validate_ms"]) > MOST_MS} == {}


def test_a_short_plan_may_name_a_long_base_configuration(tmp_path: Path) -> None:
    """It is read as if it were in the plan."""
    (tmp_path / "base.yaml").write_text(f'{{"a":[{",".join(["0.5"] * 300_000)}]}}')
    plan = tmp_path / "plan.yaml"
    plan.write_text("experiment_id: x\nbase_config_file_path: base.yaml\n")
    [found] = measured(tmp_path, plan)
    assert found["outcome"] == "accepted"
    assert max(found["intake_ms"], found["validate_ms"]) <= MOST_MS, found


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the peak of a process is told in kilobytes on Linux")
@pytest.mark.parametrize("hostile", hostile_plans.PLANS, indirect=True)
def test_reading_a_plan_takes_less_than_ten_times_its_size(hostile: Path) -> None:
    """Its size without gzip, and 64 MB: in small ones what is taken at the least counts."""
    try:
        size = len(plan_codec.unpack(hostile.read_bytes(), hostile_plans.MOST))
    except Exception:  # noqa: BLE001  # what can't be unpacked has no other size
        size = hostile.stat().st_size
    [taken] = run("taken", hostile)
    assert int(taken) < 10 * size + SPARE_BYTES, f"{int(taken) / 2**20:.0f} MB for {size / 2**20:.1f} MB"
