"""Interprets the exit code and output of a simulation. Pure: the protocol of docs/orchestrator.md in one function."""

import json
import math
import pathlib
import re
from typing import Any

from ems_worker.local.orchestrator import found, model

INFEASIBLE_EXIT = 65
"""EX_DATAERR: the configuration is readable but describes no meaningful run."""
NOT_EXECUTABLE_EXIT = 126
NOT_FOUND_EXIT = 127
RESULT_LIMIT_BYTES = 256 * 1024
"""A larger result might not fit into an event: by default, NATS limits messages to 1 MiB."""
_MESSAGE_LIMIT = 2000
_MESSAGE_LINES = 10
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def judge(
    exit_code: int,
    *,
    stdout: bytes,
    result_file: bytes | None,
    stderr: bytes,
    output_dir: pathlib.PurePath,
    metrics_file: bytes | None = None,
) -> model.RunEnd:
    """How a simulation ended that was not stopped.

    `stdout` and `stderr` are the last part of its output, `result_file` is its result.json and `metrics_file` its
    metrics.json if it wrote them. Exit codes follow the convention of shells: a code above 128 means that a signal
    ended the simulation.
    """
    reason = _tail(stderr)
    if exit_code == 0:
        return _completed(stdout, result_file, metrics_file, output_dir)
    if exit_code == INFEASIBLE_EXIT:
        return model.RunEnd(model.ErrorKind.INFEASIBLE, message=reason or "no meaningful run", retryable=False)
    if exit_code in (NOT_EXECUTABLE_EXIT, NOT_FOUND_EXIT):
        message = f"the simulator can't be executed: {reason or f'exit code {exit_code}'}"
        return model.RunEnd(model.ErrorKind.INFRASTRUCTURE, message=message, retryable=False)
    if exit_code > 128:
        message = f"killed by signal {exit_code - 128}; {reason}".rstrip("; ")
        return model.RunEnd(model.ErrorKind.INFRASTRUCTURE, message=message)
    return model.RunEnd(model.ErrorKind.SIMULATION, message=reason or f"exit code {exit_code}, nothing on stderr")


def _completed(
    stdout: bytes, result_file: bytes | None, metrics_file: bytes | None, output_dir: pathlib.PurePath
) -> model.RunEnd:
    try:
        if result_file is not None:
            result = _written(result_file)
        else:
            result = _printed(stdout) or {"metrics": found.metrics(stdout, metrics_file)}
        metrics = _metrics(result.get("metrics", {}))
        return model.RunEnd(metrics=metrics, artifacts=_artifacts(result.get("artifacts", {}), output_dir))
    except ValueError as error:
        return model.RunEnd(model.ErrorKind.SIMULATION, message=f"the result can't be used: {error}")


def _written(result_file: bytes) -> dict[str, Any]:
    if len(result_file) > RESULT_LIMIT_BYTES:
        raise ValueError(f"result.json is larger than {RESULT_LIMIT_BYTES:,} bytes")
    try:
        result = json.loads(result_file)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"result.json is not JSON: {error}") from error
    if not isinstance(result, dict):
        raise ValueError("result.json is not an object")
    return result


def _printed(stdout: bytes) -> dict[str, Any]:
    """The last line that is a JSON object with metrics or artifacts. Log lines may precede and follow it."""
    for line in reversed(stdout.splitlines()):
        if line.lstrip().startswith(b"{"):
            try:
                result = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(result, dict) and ("metrics" in result or "artifacts" in result):
                return result
    return {}


def _metrics(given: Any) -> dict[str, float]:
    """Name to number. Null, NaN and infinities are omitted; a tracked metric that is absent counts as missing."""
    if not isinstance(given, dict):
        raise ValueError("metrics is not an object")
    metrics = {}
    for name, value in given.items():
        _check_text(name)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"metric {name!r} is not a number")
        try:
            number = float(value)
        except OverflowError as error:
            raise ValueError(f"metric {name!r} is too large for a double") from error
        if math.isfinite(number):
            metrics[name] = number
    return metrics


def _artifacts(given: Any, output_dir: pathlib.PurePath) -> dict[str, str]:
    """Name to URI. A value without a scheme is a path, relative to the output directory."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError("artifacts is not an object of strings")
    for text in (*given.keys(), *given.values()):
        _check_text(text)
    return {name: uri if _SCHEME.match(uri) else (output_dir / uri).as_uri() for name, uri in given.items()}


def _check_text(text: str) -> None:
    """Raises ValueError for a lone surrogate: JSON can express it, but messages and databases can't."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise ValueError(f"{text!r} is not Unicode text") from error


def _tail(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()[-_MESSAGE_LINES:]
    return "\n".join(lines)[-_MESSAGE_LIMIT:]
