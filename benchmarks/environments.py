"""Environments under build/, each with the pinned packages of a requirements file: one a peer, and one for plots."""

import hashlib
import subprocess
import sys
from pathlib import Path

from benchmarks import orchestrator


class Unavailable(Exception):
    """Something that the benchmark needs isn't on this machine; the text says how to install it."""


def python(name: str, requirements: Path) -> Path:
    """The interpreter of the environment, installed if the requirements have changed. Raises Unavailable."""
    folder = orchestrator.BUILD / "benchmarks" / name
    interpreter, stamp = folder / "bin" / "python", folder / "requirements.sha256"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == digest:
        return interpreter
    quiet = ["--quiet", "--disable-pip-version-check", "--no-deps", "--requirement", str(requirements)]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [str(interpreter), "-m", "pip", "install", *quiet],
    ):
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            reason = (ended.stderr.strip() or ended.stdout.strip()).splitlines()[-1:]
            raise Unavailable(f"{requirements.name} can't be installed: {' '.join(reason)}")
    stamp.write_text(digest)
    return interpreter
