"""Named simulators: what is recorded of a command line, and which version of its program a run used."""

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from ems_worker import errors
from ems_worker.local import checking, provenance, registry
from ems_worker.local.orchestrator.command import Command

ENVIRONMENT = {"PATH": "/usr/bin", "PYTHONPATH": "/lib", "AWS_SECRET_ACCESS_KEY": "secret", "EMS_SERVER": "x"}


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A script in a directory of its own."""
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "train.py").write_text("print('score=1')\n")
    return directory / "train.py"


def described(program: Path, text: str = "python train.py --lr {lr}") -> registry.Simulator:
    return registry.described(Command.parse(text), program.parent, ENVIRONMENT)


def git(directory: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *arguments], cwd=directory, check=True, capture_output=True)


def test_an_entry_is_found_as_it_was_added(program: Path, tmp_path: Path) -> None:
    """Only its owner can read it. Of the environment it has only where programs and libraries are found."""
    simulator = described(program)
    registry.add(tmp_path, simulator)
    registry.add(tmp_path, simulator)
    found = registry.find(tmp_path, simulator.name)
    assert found is not None
    assert (found.command, found.origin) == (simulator.command, simulator.origin)
    assert found.command.environment == {"PATH": "/usr/bin", "PYTHONPATH": "/lib"}
    assert registry.names(tmp_path) == [simulator.name]
    directory = tmp_path / "simulators" / simulator.name
    for path in (directory, directory / "files", directory / "simulator.json", directory / "files" / "train.py"):
        assert not path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO), path
    assert (directory / "files" / "train.py").read_text() == program.read_text()


def test_program_files_of_the_same_name_are_all_kept(program: Path, tmp_path: Path) -> None:
    """Each under a name of its own."""
    (program.parent / "lib").mkdir()
    (program.parent / "lib" / "train.py").write_text("# other\n")
    simulator = described(program, "python train.py lib/train.py")
    registry.add(tmp_path, simulator)
    kept = tmp_path / "simulators" / simulator.name / "files"
    assert {path.name: path.read_text() for path in kept.iterdir()} == {
        "train.py": program.read_text(),
        "1-train.py": "# other\n",
    }


@pytest.mark.parametrize("name", ["missing", "", "..", "../x", "a/b", "x" * 65])
def test_an_unknown_name_is_not_found(tmp_path: Path, name: str) -> None:
    """No name leads out of the directory."""
    assert registry.find(tmp_path, name) is None


def test_an_entry_of_others_is_refused(program: Path, tmp_path: Path) -> None:
    """It would run whatever they wrote; so would a damaged one."""
    simulator = described(program)
    registry.add(tmp_path, simulator)
    entry = tmp_path / "simulators" / simulator.name / "simulator.json"
    entry.chmod(0o666)
    with pytest.raises(errors.SettingsError, match="may be read by others"):
        registry.find(tmp_path, simulator.name)
    entry.chmod(0o600)
    entry.write_text(json.dumps({"command": ["x"]}))
    with pytest.raises(errors.SettingsError, match="not the entry of a simulator"):
        registry.find(tmp_path, simulator.name)
    entry.parent.parent.chmod(0o777)
    with pytest.raises(errors.SettingsError, match="may be entered by others"):
        registry.find(tmp_path, simulator.name)


def test_the_name_changes_with_everything_that_a_simulator_is(program: Path) -> None:
    """Its command line, its directory, its environment and its program; and it begins with the program's name."""
    first = described(program)
    assert described(program).name == first.name
    assert first.name.startswith("train-")
    assert registry.NAME.fullmatch(first.name)
    others = [
        described(program, "python train.py {args}"),
        registry.described(first.command, program.parent.parent, ENVIRONMENT),
        registry.described(first.command, program.parent, {}),
    ]
    program.write_text("print('score=2')\n")
    others.append(described(program))
    assert len({first.name, *(other.name for other in others)}) == 5


@pytest.mark.parametrize(
    ("words", "stem"),
    [
        (["python3.11", "-u", "src/train.py", "--lr", "{lr}"], "train"),
        (["./sim", "{config}"], "sim"),
        (["sh", "-c", "sleep 1; echo x=1"], "sh"),
        (["python", "-m", "pkg.train"], "pkg"),
        (["/opt/Ünï çödé/模型.exe"], "run"),
        (["x" * 100], "x" * 40),
    ],
)
def test_the_stem_is_a_name(words: list[str], stem: str) -> None:
    """That of the script, or of the program without one."""
    assert registry.stem(words) == stem


def test_the_version_is_that_of_program_commit_and_changes(program: Path) -> None:
    """Each of them changes it."""
    versions = [described(program).model_version]
    git(program.parent, "init", "-q")
    git(program.parent, "add", "train.py")
    assert described(program).origin.git is None, "there is no commit yet"
    git(program.parent, "commit", "-qm", "one")
    committed = described(program)
    versions.append(committed.model_version)
    assert committed.origin.git is not None
    assert (committed.origin.git.dirty, committed.patch) == (None, b"")
    (program.parent / "module.py").write_text("x = 1\n")
    git(program.parent, "add", "module.py")
    git(program.parent, "commit", "-qm", "two")
    versions.append(described(program).model_version)
    (program.parent / "module.py").write_text("x = 2\n")
    changed = described(program)
    versions.append(changed.model_version)
    assert changed.origin.git is not None
    assert changed.origin.git.dirty is not None
    assert b"+x = 2" in changed.patch
    program.write_text("print('score=3')\n")
    versions.append(described(program).model_version)
    assert len(set(versions)) == len(versions)


def test_the_patch_is_kept(program: Path, tmp_path: Path) -> None:
    """With the commit it is what ran."""
    git(program.parent, "init", "-q")
    git(program.parent, "add", "train.py")
    git(program.parent, "commit", "-qm", "one")
    program.write_text("print('score=2')\n")
    simulator = described(program)
    registry.add(tmp_path, simulator)
    assert b"+print('score=2')" in (tmp_path / "simulators" / simulator.name / "uncommitted.patch").read_bytes()


def test_without_git_the_program_is_the_version(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine that has none."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert described(program).origin.git is None
    assert len(described(program).model_version) == 16


def test_a_program_that_changes_meanwhile_has_another_version(program: Path) -> None:
    """A new time alone changes nothing; other content does, and so does its end."""
    origin = described(program).origin
    assert origin.model_version_now() == origin.model_version
    os.utime(program, ns=(1, 1))
    assert origin.model_version_now() == origin.model_version
    program.write_text("print('score=2')\n")
    changed = origin.model_version_now()
    assert changed.startswith(f"{origin.model_version}-changed-")
    program.unlink()
    assert origin.model_version_now() not in (changed, origin.model_version)


def test_a_large_file_is_known_by_its_size_and_time(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading gigabytes of data before each start would take too long."""
    monkeypatch.setattr(provenance, "_MAX_HASHED_BYTES", 4)
    before = described(program)
    assert before.origin.files[0].sha256 is None
    os.utime(program, ns=(1, 1))
    assert described(program).model_version != before.model_version


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("./train.py", r"'\./train\.py' is not executable: chmod \+x \./train\.py, or run it as 'python \./train\.py'"),
        ("train.py", r"'train\.py' is a file, not a program: run it as 'python train\.py'"),
        ("notes", r"'notes' is not on PATH; the file here is '\./notes'"),
        ("./missing", r"no executable program '\./missing'"),
        ("missing-program {lr}", "no executable program 'missing-program'"),
        ("python {confg}", "did you mean {config}"),
    ],
)
def test_a_program_that_cannot_run_is_refused_with_a_remedy(
    program: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    """Every run would fail."""
    (program.parent / "notes").write_text("x")
    monkeypatch.chdir(program.parent)
    with pytest.raises(errors.SettingsError, match=message):
        checking.checked(text, "--simulator")


def test_a_program_that_can_run_is_accepted(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is a parameter itself is known only when it runs."""
    program.chmod(0o755)
    monkeypatch.chdir(program.parent)
    for text in ("./train.py {lr}", "sh train.py", "{binary} x"):
        checking.checked(text, "--simulator")


def test_python_has_another_name_on_some_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names it."""
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/python3" if name == "python3" else None)
    with pytest.raises(errors.SettingsError, match="there is 'python3'"):
        checking.checked("python train.py", "the command")


def test_no_program_of_the_repository_is_started(program: Path, tmp_path: Path) -> None:
    """Its configuration may be a stranger's. The user's own filters stay."""
    git(program.parent, "init", "-q")
    git(program.parent, "add", "train.py")
    git(program.parent, "commit", "-qm", "one")
    (program.parent / ".gitattributes").write_text("*.py filter=a=b diff=x\n")
    (program.parent / "x.sh").write_text(f"#!/bin/sh\ntouch {tmp_path}/started\ncat\n")
    (program.parent / "x.sh").chmod(0o755)
    for name in ("core.fsmonitor", "filter.a=b.clean", "filter.a=b.process", "diff.x.textconv", "diff.external"):
        git(program.parent, "config", name, str(program.parent / "x.sh"))
    git(program.parent, "config", "filter.a=b.required", "true")
    program.write_text("print('score=2')\n")
    (tmp_path / "started").unlink(missing_ok=True)
    simulator = described(program)
    assert b"+print('score=2')" in simulator.patch
    assert not (tmp_path / "started").exists()


def test_a_dry_run_starts_no_git(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts nothing at all."""

    def start(*_: object, **__: object) -> None:
        raise AssertionError("a program is started")

    monkeypatch.setattr(subprocess, "Popen", start)
    command = Command.parse("python train.py")
    assert registry.described(command, program.parent, ENVIRONMENT, with_git=False).origin.git is None


def test_a_large_patch_is_known_by_its_digest(program: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It isn't held in memory."""
    monkeypatch.setattr(provenance, "_MAX_PATCH_BYTES", 10)
    git(program.parent, "init", "-q")
    git(program.parent, "add", "train.py")
    git(program.parent, "commit", "-qm", "one")
    (program.parent / "train.py").write_text("print('score=2')\n")
    simulator = described(program)
    assert simulator.origin.git is not None
    assert simulator.origin.git.dirty is not None
    assert simulator.patch == b""
