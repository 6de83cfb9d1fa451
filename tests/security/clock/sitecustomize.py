"""Adds an offset to the wall clock of programs that have this directory on PYTHONPATH.

The file named by TEST_CLOCK contains the offset in seconds. The monotonic clock is unchanged, as it is when an operator
or NTP sets the wall clock.
"""

import os
import time
from pathlib import Path

_FILE = Path(os.environ["TEST_CLOCK"]) if "TEST_CLOCK" in os.environ else None
_time_ns = time.time_ns


def _offset_ns() -> int:
    try:
        return round(float(_FILE.read_text()) * 1e9) if _FILE is not None else 0
    except (OSError, ValueError):
        return 0


def _moved_ns() -> int:
    return _time_ns() + _offset_ns()


time.time_ns = _moved_ns
time.time = lambda: _moved_ns() / 1e9
