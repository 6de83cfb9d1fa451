"""Commands whose standard streams are closed or can't be written end with a message and an exit code."""

import os
import subprocess
from pathlib import Path

import pytest

from ems_worker.cli import exits
from tests.support import commands

PLAN = "experiment_id: streams\nbase_config: {a: 1}\nparameter_space: {a: [1, 2, 3]}\n"
FULL = Path("/dev/full")


def shell(line: str) -> commands.Ended:
    """Runs a line in a shell with our commands on PATH."""
    env = {**commands.environment(), "PATH": f"{commands.SCRIPTS}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", line], env=env, capture_output=True, text=True, timeout=60, check=False)
    return commands.Ended(done.returncode, done.stdout, done.stderr)


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    "line", ["ems --help", "ems --version", "ems-publish --help", "ems-worker config --help", "ems-worker config"]
)
def test_a_full_disk_is_exit_code_2(line: str) -> None:
    """Any output that can't be written is reported, including help and version."""
    ended = shell(f"{line} > {FULL}")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        "error: the output can't be written: No space left on device\n",
    )


@pytest.mark.parametrize("line", ["ems schema plan", "ems --version", "ems-worker config --json"])
def test_a_closed_stdout_is_exit_code_2(line: str) -> None:
    """A command that has output reports that stdout is closed."""
    ended = shell(f"{line} >&-")
    assert (ended.code, ended.err) == (exits.Exit.USAGE, "error: the output can't be written: Bad file descriptor\n")


def test_a_closed_stdout_does_not_matter_without_output(tmp_path: Path) -> None:
    """A command without output has its usual exit code and stderr."""
    ended = shell(f"ems validate {tmp_path}/none.yaml >&-")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        f"error: the plan {tmp_path}/none.yaml can't be read: No such file or directory\n",
    )


@pytest.mark.parametrize("line", ["ems-publish -", "ems validate -", "ems points -"])
def test_a_closed_stdin_is_exit_code_2(line: str) -> None:
    """A command that reads the plan from standard input reports that it can't."""
    ended = shell(f"{line} <&-")
    assert (ended.code, ended.err) == (
        exits.Exit.USAGE,
        "error: the plan on standard input can't be read: Bad file descriptor\n",
    )


def test_messages_for_a_closed_stderr_are_not_written_to_stdout(tmp_path: Path) -> None:
    """Without stderr the messages are lost, and stdout has the usual output."""
    plan = tmp_path / "plan.yaml"
    plan.write_text(PLAN)
    assert shell(f"ems validate {plan} 2>&-").out == f"{plan} is valid: 3 points: 3 jobs\n"
    ended = shell(f"ems validate {tmp_path}/none.yaml 2>&-")
    assert (ended.code, ended.out) == (exits.Exit.USAGE, "")


@pytest.mark.parametrize("flags", ["", "--jobs", "--format csv", "--format jsonl"])
def test_points_go_on_only_while_somebody_reads_them(tmp_path: Path, flags: str) -> None:
    """`head` ends a list of four billion jobs at once, with exit code 0 and without a message."""
    plan = tmp_path / "plan.yaml"
    axes = ", ".join(f"{name}: {{range: {{start: 1, stop: 1600, num: 1600}}}}" for name in "ab")
    plan.write_text(
        f"experiment_id: streams\nbase_config: {{a: 1, b: 1}}\nparameter_space: {{{axes}}}\n"
        "num_replicates_per_run: 1600\n"
    )
    ended = shell(f"{{ ems points {plan} {flags}; echo $? >&2; }} | head -n 3")
    assert (ended.err, len(ended.out.splitlines())) == ("0\n", 3)
