"""What a command line runs: the digests of its program files, and the state of their git repository."""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

# Larger files named by a command line are data: their size and time stand for their content.
_MAX_HASHED_BYTES: Final = 64 * 2**20
_GIT_SECONDS: Final = 20.0
# A larger patch is known by its digest only.
_MAX_PATCH_BYTES: Final = 4 * 2**20
_CHUNK_BYTES: Final = 64 * 1024
# The configuration of a repository can name programs, and it may be a stranger's: none of them is started.
_NO_PROGRAMS: Final = ("-c", "core.fsmonitor=false", "-c", f"core.hooksPath={os.devnull}")
_FILTERS: Final = r"^filter\..*\.(clean|smudge|process|required)$"
_ENVIRONMENT: Final = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class ProgramFile:
    """A file that a command line names. `sha256` is None if it is too large to be read."""

    path: str
    bytes: int
    modified_ns: int
    sha256: str | None

    @property
    def content(self) -> list[Any]:
        """What identifies the content."""
        name = Path(self.path).name
        return [name, self.bytes, self.modified_ns] if self.sha256 is None else [name, self.sha256]


@dataclass(frozen=True, slots=True)
class Git:
    """The commit of a working tree, and the digest of what differs from it; `dirty` is None if nothing does."""

    root: str
    commit: str
    dirty: str | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """The program files of a command line and their git state."""

    files: tuple[ProgramFile, ...]
    git: Git | None

    @property
    def model_version(self) -> str:
        """A digest of the program files, the commit and the uncommitted changes."""
        git = None if self.git is None else [self.git.commit, self.git.dirty]
        return _digest([[file.content for file in self.files], git])

    def model_version_now(self) -> str:
        """The version of a run that starts now: it differs if a program file has been changed meanwhile."""
        if all(_stands(file) for file in self.files):
            return self.model_version
        now = [_read(Path(file.path)) for file in self.files]
        content = [None if file is None else file.content for file in now]
        if content == [file.content for file in self.files]:
            return self.model_version
        return f"{self.model_version}-changed-{_digest(content)[:8]}"

    def document(self) -> dict[str, Any]:
        """The provenance as JSON, for `of_document`."""
        return dataclasses.asdict(self)


def of_document(document: Mapping[str, Any]) -> Provenance:
    """The provenance that `Provenance.document` gave. Raises TypeError or KeyError for anything else."""
    git = document["git"]
    return Provenance(tuple(ProgramFile(**file) for file in document["files"]), None if git is None else Git(**git))


def of(words: Sequence[str], directory: Path, *, with_git: bool = True) -> tuple[Provenance, bytes]:
    """The provenance of a command line that runs in `directory`, and the difference to the commit as a patch.

    The patch is empty if it is too large to be kept.
    """
    paths = dict.fromkeys(path.resolve() for path in _named(words, directory))
    files = tuple(file for path in paths if (file := _read(path)) is not None)
    git, patch = _git(next(iter(paths), directory / "x").parent) if with_git else (None, b"")
    return Provenance(files, git), patch


def _named(words: Iterable[str], directory: Path) -> Iterable[Path]:
    """The files that words of the command line name. A program that is found on PATH is not one of the user's."""
    for word in words:
        with contextlib.suppress(OSError, ValueError):  # too long for a name, or with a NUL
            if (path := directory / word).is_file():
                yield path


def _stands(file: ProgramFile) -> bool:
    with contextlib.suppress(OSError):
        status = os.stat(file.path)
        return (status.st_size, status.st_mtime_ns) == (file.bytes, file.modified_ns)
    return False


def _read(path: Path) -> ProgramFile | None:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            small = status.st_size <= _MAX_HASHED_BYTES
            sha256 = hashlib.file_digest(file, "sha256").hexdigest() if small else None
    except OSError:
        return None
    return ProgramFile(str(path), status.st_size, status.st_mtime_ns, sha256)


def _git(directory: Path) -> tuple[Git | None, bytes]:
    """The state of the repository that a directory is in; None without git or a commit."""
    if shutil.which("git") is None:
        return None, b""
    try:
        root, commit = _asked(directory, "rev-parse", "--show-toplevel", "HEAD").decode().splitlines()
        digest, patch = _difference(directory)
    except (OSError, ValueError, subprocess.SubprocessError):
        return None, b""
    return Git(root, commit, digest), patch


def _difference(directory: Path) -> tuple[str | None, bytes]:
    """The digest of what differs from the commit, and the patch if it isn't too large."""
    # The work trees of submodules have configurations of their own.
    options = ["--no-ext-diff", "--no-textconv", "--no-color", "--binary", "--ignore-submodules=dirty"]
    command = _command(directory, "diff", *options, "HEAD")
    env = _environment(_own_filters(directory))
    digest, patch, size = hashlib.sha256(), bytearray(), 0
    with subprocess.Popen(  # noqa: S603
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=env
    ) as process:
        assert process.stdout is not None
        late = threading.Timer(_GIT_SECONDS, process.kill)
        late.start()
        try:
            while chunk := process.stdout.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += len(chunk)
                if size <= _MAX_PATCH_BYTES:
                    patch += chunk
            code = process.wait()
        finally:
            late.cancel()
            process.kill()
    if code:
        raise subprocess.CalledProcessError(code, command)
    return digest.hexdigest() if size else None, bytes(patch) if size <= _MAX_PATCH_BYTES else b""


def _own_filters(directory: Path) -> list[str]:
    """The settings of filters that the repository has itself. Those of the user, such as git-lfs, are trusted."""
    try:
        listed = _asked(directory, "config", "-z", "--show-scope", "--name-only", "--get-regexp", _FILTERS)
    except subprocess.CalledProcessError as failed:
        if failed.returncode == 1:  # there are none
            return []
        raise
    fields = listed.decode(errors="surrogateescape").split("\0")
    return [name for scope, name in zip(fields[::2], fields[1::2], strict=False) if scope in ("local", "worktree")]


def _asked(directory: Path, *arguments: str) -> bytes:
    command = _command(directory, *arguments)
    return subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, timeout=_GIT_SECONDS, env=_environment()
    ).stdout


def _command(directory: Path, *arguments: str) -> list[str]:
    return ["git", *_NO_PROGRAMS, "-C", str(directory), *arguments]


def _environment(without: Sequence[str] = ()) -> dict[str, str]:
    """The environment of git, in which these settings of filters do nothing."""
    env = {**os.environ, **_ENVIRONMENT}
    if without:
        # Not -c: a name may contain an equals sign.
        env["GIT_CONFIG_COUNT"] = str(len(without))
        for number, name in enumerate(without):
            env[f"GIT_CONFIG_KEY_{number}"] = name
            env[f"GIT_CONFIG_VALUE_{number}"] = "false" if name.endswith(".required") else ""
    return env


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, separators=(",", ":")).encode()).hexdigest()[:_DIGITS]
