"""Runs code as another user of this machine, which only root can do."""

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

NOBODY = 65534
# Modules are imported before the user is changed, since the other user may not be able to read this Python.
_PRELUDE = f"""
import json, os, pathlib, socket, sys
"".encode("idna")
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
given = json.loads(sys.stdin.read())
"""


def require_root() -> None:
    """Skips a test that needs another user. Without root only the permissions of files are checked, by other tests."""
    if os.geteuid() != 0:
        pytest.skip("only root can run code as another user")


def run(code: str, given: Any) -> Any:
    """Runs Python code as nobody and returns the JSON that it prints; the code has the variable `given`."""
    require_root()
    command = [sys.executable, "-c", _PRELUDE + textwrap.dedent(code)]
    ended = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
