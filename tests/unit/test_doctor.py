"""What `ems doctor` finds on this machine, and what it says to do."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from ems_worker.cli.checks import machine, nats
from ems_worker.cli.checks.findings import Verdict


def script(directory: Path, name: str, mode: int) -> Path:
    path = directory / name
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_a_simulator_that_can_be_started_is_ok(tmp_path: Path) -> None:
    """A program on PATH with a script that is there, or a program by its path."""
    script(tmp_path, "sim.py", 0o644)
    script(tmp_path, "sim.sh", 0o755)
    for command in ("sh sim.py {config} {seed}", "./sim.sh {config}", f"{tmp_path}/sim.sh"):
        assert machine.simulator(command, tmp_path).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("command", "seen", "remedy"),
    [
        ("./sim.sh {config}", "is not executable", "chmod +x"),
        ("sim.sh {config}", "there is no program 'sim.sh'", "is named ./sim.sh"),
        ("./other.sh", "there is no program './other.sh'", "give the path"),
        ("sh other.sh", "no file 'other.sh'", "whole path"),
        ("sh 'other", "can't be read", "as for a shell"),
        ("", "can't be read", "as for a shell"),
    ],
)
def test_a_simulator_that_cant_be_started_fails_with_the_remedy(
    tmp_path: Path, command: str, seen: str, remedy: str
) -> None:
    """Each of the usual reasons has a remedy of its own."""
    script(tmp_path, "sim.sh", 0o644)
    finding = machine.simulator(command, tmp_path)
    assert finding.verdict is Verdict.FAIL
    assert seen in finding.seen
    assert remedy in finding.remedy


def test_a_simulator_that_nobody_names_is_unknown() -> None:
    """Only the orchestrator knows it then."""
    assert machine.simulator(None, None).verdict is Verdict.UNKNOWN


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.mark.parametrize(
    ("free", "total", "verdict"),
    [
        (500_000_000_000, 10**12, Verdict.OK),
        (30_000_000_000, 10**12, Verdict.WARN),
        (1_000_000_000, 10**10, Verdict.WARN),
        (50_000_000, 10**10, Verdict.FAIL),
    ],
)
def test_a_disk_that_is_nearly_full_is_reported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free: int, total: int, verdict: Verdict
) -> None:
    """By its share and by what is left."""
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(total, total - free, free))
    assert machine.disk(tmp_path).verdict is verdict
    assert machine.disk(tmp_path / "missing").verdict is Verdict.UNKNOWN


def test_a_network_file_system_fails(tmp_path: Path) -> None:
    """The manifest may not be on it; without a list of mounts nobody knows."""
    mounts = tmp_path / "mountinfo"
    for kind, verdict in (("ext4", Verdict.OK), ("nfs4", Verdict.FAIL)):
        mounts.write_text(f"1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / {tmp_path} rw - {kind} host:/a rw\n")
        assert machine.file_system(tmp_path, mounts).verdict is verdict
    assert machine.file_system(tmp_path, tmp_path / "missing").verdict is Verdict.UNKNOWN
    assert machine.file_system(None, mounts).verdict is Verdict.UNKNOWN


def test_another_version_of_the_worker_is_a_warning() -> None:
    """Both are told, with the extras that are missing."""
    finding = machine.versions("2.15.0", "9.9.9")
    assert finding.verdict is Verdict.WARN
    assert "nats-server 2.15.0" in finding.seen
    assert "the worker is 9.9.9" in finding.seen
    assert machine.versions(None, None).verdict is Verdict.OK


@pytest.mark.parametrize(
    ("stamps", "verdict"),
    [
        ([], Verdict.UNKNOWN),
        (["nonsense"], Verdict.UNKNOWN),
        (["2000-01-01T00:00:00.123456789Z"], Verdict.WARN),
        (["2999-01-01T00:00:00Z"], Verdict.WARN),
    ],
)
def test_a_clock_that_is_off_is_a_warning(stamps: list[str], verdict: Verdict) -> None:
    """It is compared with the times in the broker's answers."""
    finding = nats.clock({str(number): {"ts": stamp} for number, stamp in enumerate(stamps)})
    assert finding.verdict is verdict
    if verdict is Verdict.WARN:
        assert ("behind" in finding.seen) is stamps[0].startswith("2999")
