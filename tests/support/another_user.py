"""What another user of this machine can do. Only root can take another's part."""

import json
import os
import subprocess
import sys
import textwrap
from typing import Any

import pytest

NOBODY = 65534
# Everything is imported before: another user may not be able to read this Python.
_PRELUDE = f"""
import json, os, pathlib, socket, sys
"".encode("idna")
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
given = json.loads(sys.stdin.read())
"""


def needs_root() -> None:
    """Skips a test that can't be done otherwise; what it shows is then shown by modes only."""
    if os.geteuid() != 0:
        pytest.skip("only root can take another user's part")


def runs(code: str, given: Any) -> Any:
    """Runs Python as nobody, with `given`; it prints JSON."""
    needs_root()
    command = [sys.executable, "-c", _PRELUDE + textwrap.dedent(code)]
    ended = subprocess.run(command, input=json.dumps(given), capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)
