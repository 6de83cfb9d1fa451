"""What a simulation's exit code and output say, read as docs/orchestrator.md has it. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

RESULT_LIMIT_BYTES = 256 * 1024
"""What an orchestrator reads of a result: it has to fit into an event."""
_MOST_WORDS = 500


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a simulation ended: a shell's exit code, the end of stderr, its result, or why that can't be used."""

    exit_code: int
    words: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    problem: str = ""


def read(exit_code: int, stdout: bytes, stderr: bytes, result_file: bytes | None, output: Path) -> Outcome:
    """The outcome. `exit_code` is negative where a signal ended it; `result_file` is result.json where there is one."""
    code = exit_code if exit_code >= 0 else 128 - exit_code
    words = stderr.decode(errors="replace").strip()[-_MOST_WORDS:]
    try:
        result = _printed(stdout) if result_file is None else _written(result_file)
        found, files = _metrics(result.get("metrics", {})), _artifacts(result.get("artifacts", {}), output)
    except ValueError as wrong:
        return Outcome(code, words, problem=f"its result can't be used: {wrong}")
    return Outcome(code, words, found, files)


def _written(result_file: bytes) -> dict[str, Any]:
    if len(result_file) > RESULT_LIMIT_BYTES:
        raise ValueError(f"result.json has {len(result_file)} bytes, over {RESULT_LIMIT_BYTES}")
    try:
        result = json.loads(result_file)
    except ValueError as wrong:
        raise ValueError(f"result.json is not JSON: {wrong}") from wrong
    if not isinstance(result, dict):
        raise ValueError("result.json is not an object")
    return result


def _printed(stdout: bytes) -> dict[str, Any]:
    """The last line that is a JSON object with metrics or artifacts."""
    for line in reversed(stdout[-RESULT_LIMIT_BYTES:].splitlines()):
        try:
            result = json.loads(line) if line.lstrip().startswith(b"{") else None
        except ValueError:
            continue
        if isinstance(result, dict) and ("metrics" in result or "artifacts" in result):
            return result
    return {}


def _metrics(given: object) -> dict[str, float | None]:
    """NaN and infinities become None, as null does: no value."""
    if not isinstance(given, dict):
        raise ValueError("metrics is not an object")
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"the metric {name!r} is {value!r}, not a number")
    return {name: value if value is not None and math.isfinite(value) else None for name, value in given.items()}


def _artifacts(given: object, output: Path) -> dict[str, Path]:
    """The files among them; what has another scheme is somewhere that can't be looked at."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError("artifacts is not an object of strings")
    files = {}
    for name, uri in given.items():
        parts = urlsplit(uri)
        if parts.scheme in ("", "file"):
            files[name] = output / unquote(parts.path) if parts.scheme else output / uri
    return files
