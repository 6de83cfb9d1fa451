"""Cancelling many jobs never blocks the event loop for long."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# For how long the loop may be blocked, and how often that is measured before it counts as too long.
MAX_BLOCKED = {"calls": 20_000, "ms": 50}
TRIES = {"calls": 1, "ms": 4}


def check(unit: str, points: int, *where: str) -> None:
    """All jobs are cancelled, and in one of several runs the loop is never blocked for longer than it may be."""
    blocked = []
    for _ in range(TRIES[unit]):
        command = [sys.executable, "-m", "tests.support.held_cancel", unit, str(points), *where]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
        assert ended.returncode == 0, ended.stderr[-2000:]
        cost = json.loads(ended.stdout.splitlines()[-1])
        assert cost["cancelled"] == 5 * points
        blocked.append(cost["blocked"])
        if blocked[-1] <= MAX_BLOCKED[unit]:
            return
    raise AssertionError(f"the loop was blocked for {blocked} {unit}")


def test_the_loop_turns_while_jobs_are_cancelled() -> None:
    """The whole experiment, of which most jobs never started."""
    check("calls", 1_000)


def test_the_loop_turns_while_a_condition_chooses_jobs() -> None:
    """Each job is judged by itself."""
    check("calls", 400, "food >= 0")


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_the_loop_turns_within_fifty_milliseconds_while_jobs_are_cancelled() -> None:
    """A hundred thousand of them, and ten thousand by a condition."""
    check("ms", 20_000)
    check("ms", 2_000, "food >= 0")
