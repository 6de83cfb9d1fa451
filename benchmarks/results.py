"""The files with results: what was measured, when, and on what kind of machine. They name no machine and no path."""

import json
import os
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from ems_worker.local import nats_server

FOLDER: Final = Path(__file__).parent / "results"
QUICK: Final = FOLDER / "quick.json"
FULL: Final = FOLDER / "full.json"
_PACKAGES: Final = ("grpcio", "nats-py", "msgspec", "orjson", "uvloop", "aiosqlite")


def machine() -> dict[str, Any]:
    """The kind of machine, and the versions of what is measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 2**30),
        "system": f"{platform.system()} {platform.release().partition('-')[0]}",
        "python": platform.python_version(),
        "nats_server": _first_line([str(nats_server.find_executable()), "--version"]).removeprefix("nats-server: "),
        "packages": {name: metadata.version(name) for name in _PACKAGES},
        "load_before": round(os.getloadavg()[0], 1),
    }


def write(path: Path, found: Mapping[str, Any]) -> None:
    """Writes results with the date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dated = {"date": datetime.now(UTC).date().isoformat(), **found}
    path.write_text(json.dumps(_rounded(dated), indent=1, ensure_ascii=False) + "\n")


def read(path: Path) -> dict[str, Any]:
    """Earlier results; empty if there are none."""
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _rounded(value: Any) -> Any:
    """Four digits: more are noise, and would make two files hard to compare."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if abs(value) < 10_000 else float(round(value))
    if isinstance(value, Mapping):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(each) for each in value]
    return value


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _first_line(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("\n")[0].strip()
