"""How a simulation ended, from its exit code and output, by the rules in docs/orchestrator.md. Pure."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

RESULT_LIMIT_BYTES = 256 * 1024
"""How much of a result an orchestrator reads, so that it fits into an event."""
_MAX_STDERR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class ObservedRun:
    """How a simulation ended: its exit code as in a shell, the end of stderr, and its result or the problem with it."""

    exit_code: int
    stderr: str
    metrics: Mapping[str, float | None] = field(default_factory=dict)
    artifacts: Mapping[str, Path] = field(default_factory=dict)
    problem: str = ""


def read(exit_code: int, *, stdout: bytes, stderr: bytes, result_file: bytes | None, output: Path) -> ObservedRun:
    """How the simulation ended. `exit_code` is negative for a signal; `result_file` is the content of result.json."""
    code = exit_code if exit_code >= 0 else 128 - exit_code
    end = stderr.decode(errors="replace").strip()[-_MAX_STDERR_CHARACTERS:]
    try:
        result = _from_stdout(stdout) if result_file is None else _from_file(result_file)
        metrics, artifacts = _metrics(result.get("metrics", {})), _artifacts(result.get("artifacts", {}), output)
    except ValueError as error:
        return ObservedRun(code, end, problem=f"its result can't be used: {error}")
    return ObservedRun(code, end, metrics, artifacts)


def _from_file(result_file: bytes) -> dict[str, Any]:
    if len(result_file) > RESULT_LIMIT_BYTES:
        raise ValueError(f"result.json has {len(result_file):,} bytes, over {RESULT_LIMIT_BYTES:,}")
    try:
        result = json.loads(result_file)
    except ValueError as error:
        raise ValueError(f"result.json is not JSON: {error}") from error
    if not isinstance(result, dict):
        raise ValueError("result.json is not an object")
    return result


def _from_stdout(stdout: bytes) -> dict[str, Any]:
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
    """The metrics, in which NaN and infinities become None, like null."""
    if not isinstance(given, dict):
        raise ValueError("metrics is not an object")
    for name, value in given.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise ValueError(f"the metric {name!r} is {value!r}, not a number")
    return {name: value if value is not None and math.isfinite(value) else None for name, value in given.items()}


def _artifacts(given: object, output: Path) -> dict[str, Path]:
    """The artifacts that are files; the kit can't check URIs with another scheme."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError("artifacts is not an object of strings")
    files = {}
    for name, uri in given.items():
        parts = urlsplit(uri)
        if parts.scheme in ("", "file"):
            files[name] = output / unquote(parts.path) if parts.scheme else output / uri
    return files
