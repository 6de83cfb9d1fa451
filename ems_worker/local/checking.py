"""Checks the command line of a simulator before anything is started with it."""

import os
import shlex
import shutil
from pathlib import Path
from typing import Any

from ems_worker import errors
from ems_worker.local.orchestrator import command


def checked(text: str, where: str, **known: Any) -> command.Command:
    """The command line of a simulator. `known` is what `Command.parse` takes.

    Raises SettingsError for one with which every run would fail; `where` names it.
    """
    try:
        parsed = command.Command.parse(text, **known)
    except ValueError as error:
        raise errors.SettingsError(f"{where} {text!r}: {error}") from error
    program = parsed.arguments[0]
    if "{" in program or shutil.which(program) is not None:
        return parsed
    raise errors.SettingsError(f"{where}: {_no_program(program)}")


def _no_program(program: str) -> str:
    path = Path(program)
    if not path.is_file():
        other = "; there is 'python3'" if program == "python" and shutil.which("python3") else ""
        return f"there is no executable program {program!r}{other}"
    if os.sep in program:
        runs = f"python {program}" if path.suffix == ".py" else f"sh {program}"
        return f"{program!r} is not executable: chmod +x {shlex.quote(program)}, or run it as {runs!r}"
    if path.suffix == ".py":
        return f"{program!r} is a file, not a program: run it as 'python {program}'"
    return f"{program!r} is not on PATH; the file here is './{program}'"
