"""What a simulation's exit code and output mean. Pure: the protocol of docs/orchestrator.md, one function."""

import json
import math
import pathlib
import re
from typing import Any

from ems_worker.local.orchestrator import model

INFEASIBLE_EXIT = 65
"""EX_DATAERR: the configuration can be read, but no meaningful run comes of it."""
NOT_EXECUTABLE_EXIT = 126
NOT_FOUND_EXIT = 127
RESULT_LIMIT_BYTES = 256 * 1024
"""A larger result wouldn't fit into an event: NATS takes 1 MiB a message unless told otherwise."""
_MESSAGE_LIMIT = 2000
_MESSAGE_LINES = 10
_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*:")


def judge(
    exit_code: int, stdout: bytes, result_file: bytes | None, stderr: bytes, output_dir: pathlib.PurePath
) -> model.Outcome:
    """The outcome of a simulation that ended by itself.

    `stdout` and `stderr` are the ends of what it wrote, `result_file` is its result.json where there is one. Exit codes
    are a shell's: above 128 a signal ended it.
    """
    words = _last_words(stderr)
    if exit_code == 0:
        return _completed(stdout, result_file, output_dir)
    if exit_code == INFEASIBLE_EXIT:
        return model.Outcome(model.ErrorKind.INFEASIBLE, message=words or "no meaningful run", retryable=False)
    if exit_code in (NOT_EXECUTABLE_EXIT, NOT_FOUND_EXIT):
        message = f"the simulator can't be executed: {words or f'exit code {exit_code}'}"
        return model.Outcome(model.ErrorKind.INFRASTRUCTURE, message=message, retryable=False)
    if exit_code > 128:
        message = f"killed by signal {exit_code - 128}; {words}".rstrip("; ")
        return model.Outcome(model.ErrorKind.INFRASTRUCTURE, message=message)
    return model.Outcome(model.ErrorKind.SIMULATION, message=words or f"exit code {exit_code}, nothing on stderr")


def _completed(stdout: bytes, result_file: bytes | None, output_dir: pathlib.PurePath) -> model.Outcome:
    try:
        result = _printed(stdout) if result_file is None else _written(result_file)
        metrics = _metrics(result.get("metrics", {}))
        return model.Outcome(metrics=metrics, artifacts=_artifacts(result.get("artifacts", {}), output_dir))
    except ValueError as wrong:
        return model.Outcome(model.ErrorKind.SIMULATION, message=f"the result can't be used: {wrong}")


def _written(result_file: bytes) -> dict[str, Any]:
    if len(result_file) > RESULT_LIMIT_BYTES:
        raise ValueError(f"result.json is larger than {RESULT_LIMIT_BYTES} bytes")
    try:
        result = json.loads(result_file)
    except (ValueError, RecursionError) as wrong:
        raise ValueError(f"result.json is not JSON: {wrong}") from wrong
    if not isinstance(result, dict):
        raise ValueError("result.json is not an object")
    return result


def _printed(stdout: bytes) -> dict[str, Any]:
    """The last line that is a JSON object with metrics or artifacts; logs may come before and after it."""
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
    """Name to number. Null, NaN and infinities are left out: whoever tracks them counts them as missing."""
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
        except OverflowError as wrong:
            raise ValueError(f"metric {name!r} is too large for a double") from wrong
        if math.isfinite(number):
            metrics[name] = number
    return metrics


def _artifacts(given: Any, output_dir: pathlib.PurePath) -> dict[str, str]:
    """Name to URI. What has no scheme is a path, from the output directory where it is relative."""
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise ValueError("artifacts is not an object of strings")
    for text in (*given.keys(), *given.values()):
        _check_text(text)
    return {name: uri if _SCHEME.match(uri) else (output_dir / uri).as_uri() for name, uri in given.items()}


def _check_text(text: str) -> None:
    """JSON can spell half of a surrogate pair, which no message and no database takes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as wrong:
            raise ValueError(f"{text!r} is not Unicode text") from wrong


def _last_words(stderr: bytes) -> str:
    lines = stderr.decode(errors="replace").strip().splitlines()[-_MESSAGE_LINES:]
    return "\n".join(lines)[-_MESSAGE_LIMIT:]
