"""The protos may grow but not change: `make lint` holds them against a baseline and detects a breaking change."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROTOS = Path(__file__).resolve().parents[2] / "protos"
ORCHESTRATOR = "fes/orchestrator/v1/orchestrator.proto"


def breaking(folder: Path) -> subprocess.CompletedProcess[str]:
    """`buf breaking` of these protos against the baseline of the last release."""
    buf = Path(sys.executable).with_name("buf")
    return subprocess.run(
        [buf, "breaking", "--against", PROTOS / "baseline.binpb"], cwd=folder, capture_output=True, text=True
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the protos that a test may change."""
    shutil.copytree(PROTOS, tmp_path / "protos", ignore=shutil.ignore_patterns("*.binpb", "*.py"))
    return tmp_path / "protos"


def test_the_protos_break_no_program() -> None:
    """Programs built with the protos of the last release understand these."""
    ended = breaking(PROTOS)
    assert (ended.returncode, ended.stdout) == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("string simulation_id = 1;", "string simulation_id = 100;"),
        ("bytes config = ", "string config = "),
        ("  rpc StartSimulations(", "  rpc StartMany("),
    ],
)
def test_a_breaking_change_is_detected(copy: Path, old: str, new: str) -> None:
    """A field with another number or type, or a missing call, fails the check."""
    proto = copy / ORCHESTRATOR
    text = proto.read_text()
    assert old in text
    proto.write_text(text.replace(old, new, 1))
    ended = breaking(copy)
    assert ended.returncode != 0
    assert "orchestrator.proto" in ended.stdout
