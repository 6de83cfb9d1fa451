"""The benchmarks work, so that the figures in docs/performance.md can be measured again."""

import json
import subprocess
import sys

import pytest

from tests.support import commands, servers


@pytest.mark.long
@pytest.mark.parametrize("flags", [[], ["--no-batch"]])
def test_a_small_benchmark_measures_both(flags: list[str]) -> None:
    """A small benchmark measures a positive rate for the worker and for the bare wire."""
    command = [sys.executable, "-m", "benchmarks.jobs", "--jobs", "20", "--turns", "1", "--json", *flags]
    ended = subprocess.run(
        command, cwd=servers.ROOT, env=commands.environment(), capture_output=True, text=True, timeout=100
    )
    assert ended.returncode == 0, ended.stderr
    measured = json.loads(ended.stdout)
    assert (measured["jobs"], measured["batch"]) == (20, not flags)
    assert all(measured["medians"][kind]["jobs_per_second"] > 0 for kind in ("worker", "bare wire"))
