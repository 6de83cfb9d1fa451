"""The benchmarks run: numbers in docs/performance.md can be measured anew at any time."""

import json
import subprocess
import sys

import pytest

from tests.support import commands, servers


@pytest.mark.long
@pytest.mark.parametrize("flags", [[], ["--no-batch"]])
def test_a_small_benchmark_measures_both(flags: list[str]) -> None:
    """The worker and the bare wire, each a positive number of jobs a second."""
    command = [sys.executable, "-m", "benchmarks.jobs", "--jobs", "20", "--turns", "1", "--json", *flags]
    ended = subprocess.run(
        command, cwd=servers.ROOT, env=commands.environment(), capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["jobs"], found["batch"]) == (20, not flags)
    assert all(found["medians"][kind]["jobs_per_second"] > 0 for kind in ("worker", "bare wire"))
