"""Commands whose standard streams are closed, or can't be written: words and an exit code, never a traceback."""

import os
import subprocess
from pathlib import Path

import pytest

from ems_worker.cli import exits
from tests.support import commands

PLAN = "experiment_id: streams\nbase_config: {a: 1}\nparameter_space: {a: [1, 2, 3]}\n"
FULL = Path("/dev/full")


def shell(line: str) -> commands.Ended:
    """A line as a shell runs it; its commands are ours."""
    env = {**commands.environment(), "PATH": f"{commands.SCRIPTS}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=60, check=False)
    return commands.Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    "line", ["ems --help", "ems --version", "ems-publish --help", "ems-worker config --help", "ems-worker config"]
)
def test_a_full_disk_is_told_by_every_output(line: str) -> None:
    """Help and version are output like any other."""
    ended = shell(f"{line} > {FULL}")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        "error: the output can't be written: No space left on device\n",
    )


@pytest.mark.parametrize("line", ["ems schema plan", "ems --version", "ems-worker config --json"])
def test_a_closed_stdout_is_told(line: str) -> None:
    """Whoever asked for output hears that there is none."""
    ended = shell(f"{line} >&-")
    assert (ended.code, ended.err) == (exits.Exit.USAGE, "error: the output can't be written: Bad file descriptor\n")


def test_a_closed_stdout_is_no_hindrance_where_nothing_is_printed(tmp_path: Path) -> None:
    """Exit code and stderr say it all."""
    ended = shell(f"ems validate {tmp_path}/none.yaml >&-")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        f"error: the plan {tmp_path}/none.yaml can't be read: No such file or directory\n",
    )


@pytest.mark.parametrize("line", ["ems-publish -", "ems validate -"])
def test_a_closed_stdin_is_told(line: str) -> None:
    """A plan that is to come from it can't be read."""
    ended = shell(f"{line} <&-")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        "error: the plan on standard input can't be read: Bad file descriptor\n",
    )


def test_what_is_for_a_closed_stderr_does_not_get_into_the_output(tmp_path: Path) -> None:
    """Words for people are lost, data is as it was."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    assert shell(f"ems validate {plan} 2>&-").out == f"{plan} is valid: 3 points: 3 jobs\n"
    ended = shell(f"ems validate {tmp_path}/none.yaml 2>&-")
    assert (ended.code, ended.out) == (exits.Exit.USAGE, "")
