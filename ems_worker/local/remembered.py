"""The simulator of a platform's last start, with which the next one continues unless it is given another.

Otherwise what is left of an experiment would be run by another program.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ems_worker.settings import private

_FILE = "simulator.json"
_NAMES = ("simulator", "model_version", "config_format")


@dataclass(frozen=True, slots=True)
class Simulator:
    """The command line of the runs, empty for the built-in simulator, and the options that belong to it."""

    simulator: str = ""
    model_version: str | None = None
    config_format: str | None = None


def read(data_dir: Path) -> Simulator:
    """The simulator of the last start in this directory; the built-in one if there was none."""
    try:
        found: Any = json.loads((data_dir / "orchestrator" / _FILE).read_bytes())
    except (OSError, ValueError):
        return Simulator()
    known = {name: found.get(name) for name in _NAMES} if isinstance(found, Mapping) else {}
    texts = {name: value for name, value in known.items() if isinstance(value, str)}
    return Simulator(**texts)


def write(data_dir: Path, simulator: Simulator) -> None:
    """Remembers the simulator of a platform that has started. Raises errors.FileUnwritable."""
    os.close(private.write(data_dir / "orchestrator" / _FILE, json.dumps(asdict(simulator)).encode()))
