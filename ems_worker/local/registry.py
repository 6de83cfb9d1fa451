"""The named simulators of a local orchestrator: command lines that `ems run` has added to its private directory.

A plan chooses one by its name (`simulator: NAME`). The name has a digest of everything that the simulator is, so an
entry never changes. `DIR/NAME/simulator.json` is the entry; beside it are the program files and, as a patch, what
differed from the commit of their repository: with the commit they are what ran.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from ems_worker import errors
from ems_worker.local import provenance
from ems_worker.local.orchestrator.command import Command
from ems_worker.settings import private

NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
# The directory in that of the orchestrator.
DIRECTORY: Final = "simulators"
_ENTRY: Final = "simulator.json"
# Where programs and libraries are found. Nothing else of the environment is recorded: it may hold secrets.
_SEARCHED: Final = (
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "CONDA_PREFIX",
    "CONDA_DEFAULT_ENV",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "R_LIBS",
    "R_LIBS_USER",
    "JULIA_PROJECT",
    "JULIA_DEPOT_PATH",
    "JULIA_LOAD_PATH",
    "JAVA_HOME",
    "CLASSPATH",
    "MATLABPATH",
    "NODE_PATH",
)
# Larger program files and patches aren't copied; their digests are recorded.
_MAX_COPIED_BYTES: Final = 4 * 2**20
_STEM: Final = re.compile(r"[^A-Za-z0-9_]+")
_MAX_STEM: Final = 40
# Of a placeholder, or of a script inside a word.
_NO_NAME: Final = re.compile(r"[{\s;|]")
_INTERPRETERS: Final = re.compile(r"(python|pypy|perl|ruby|node|Rscript|julia|octave|bash|sh|env|uv|poetry)[\d.]*")


@dataclasses.dataclass(frozen=True, slots=True)
class Simulator:
    """A named simulator. `patch` is what differed from the commit; it is known only before the entry is written."""

    command: Command
    origin: provenance.Provenance
    name: str
    patch: bytes = b""

    @property
    def model_version(self) -> str:
        """The digest of the program and its git state."""
        return self.origin.model_version


def described(command: Command, directory: Path, environ: Mapping[str, str], *, with_git: bool = True) -> Simulator:
    """The simulator that this command line is in a directory and an environment, with its name."""
    searched = {name: environ[name] for name in _SEARCHED if environ.get(name)}
    command = dataclasses.replace(command, directory=directory, environment=searched)
    origin, patch = provenance.of(command.arguments, directory, with_git=with_git)
    whole = [command.arguments, command.config_format, str(directory), searched, origin.model_version]
    digest = hashlib.sha256(json.dumps(whole).encode()).hexdigest()[:12]
    return Simulator(command, origin, f"{stem(command.arguments)}-{digest}", patch)


def stem(words: Sequence[str]) -> str:
    """A short name for a command line: that of the script, or of the program without one."""
    names = [Path(word).name for word in words if not word.startswith("-") and not _NO_NAME.search(word)]
    chosen = next((name for name in names if not _INTERPRETERS.fullmatch(name)), Path(words[0]).name)
    return _STEM.sub("-", chosen.rpartition(".")[0] or chosen).strip("-_")[:_MAX_STEM] or "run"


def add(orchestrator: Path, simulator: Simulator) -> None:
    """Adds a simulator to those of the orchestrator with this directory. Raises errors.FileUnwritable."""
    directory = private.directory(private.directory(orchestrator / DIRECTORY) / simulator.name)
    if (directory / _ENTRY).exists():
        return
    if 0 < len(simulator.patch) <= _MAX_COPIED_BYTES:
        os.close(private.write(directory / "uncommitted.patch", simulator.patch))
    files = private.directory(directory / "files")
    for number, file in enumerate(simulator.origin.files):
        path = Path(file.path)
        if file.bytes <= _MAX_COPIED_BYTES:
            same = any(Path(other.path).name == path.name for other in simulator.origin.files[:number])
            _copy(path, files / (f"{number}-{path.name}" if same else path.name))
    command = simulator.command
    entry = {
        "name": simulator.name,
        "command": command.arguments,
        "config_format": command.config_format,
        "directory": str(command.directory),
        "environment": command.environment,
        "model_version": simulator.model_version,
        **simulator.origin.document(),
    }
    # Last: an entry is complete.
    os.close(private.write(directory / _ENTRY, json.dumps(entry, indent=2).encode() + b"\n"))


def find(orchestrator: Path, name: str) -> Simulator | None:
    """The simulator with this name; None if there is none.

    Raises errors.SettingsError for an entry that is not a file of this user alone, or that `add` didn't write.
    """
    if not NAME.fullmatch(name):
        return None
    path = orchestrator / DIRECTORY / name / _ENTRY
    if not all(private.is_own_directory(each) for each in (path.parent.parent, path.parent)):
        return None
    try:
        descriptor, content = private.read(path)
    except FileNotFoundError:
        return None
    os.close(descriptor)
    try:
        entry = json.loads(content)
        command = Command(
            tuple(entry["command"]), entry["config_format"], Path(entry["directory"]), dict(entry["environment"])
        )
        return Simulator(command, provenance.of_document(entry), name)
    except (ValueError, KeyError, TypeError) as failed:
        raise errors.SettingsError(f"{path} is not the entry of a simulator: remove its directory") from failed


def _copy(path: Path, to: Path) -> None:
    try:
        os.close(private.write(to, path.read_bytes()))
    except OSError as failed:
        raise errors.FileUnwritable(f"{path} can't be copied: {failed.strerror}") from failed


def names(orchestrator: Path) -> list[str]:
    """The names of all simulators."""
    directory = orchestrator / DIRECTORY
    return sorted(entry.parent.name for entry in directory.glob(f"*/{_ENTRY}"))
