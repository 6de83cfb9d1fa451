"""The simulator protocol as a pure function: how exit codes and output are interpreted."""

import json
import math
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker.local.orchestrator import model, result

OUTPUT = PurePosixPath("/data/run/output")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def judge(exit_code: int = 0, stdout: bytes = b"", *, file: bytes | None = None, stderr: bytes = b"") -> model.RunEnd:
    """How a simulation with this exit code and output ended."""
    return result.judge(exit_code, stdout=stdout, result_file=file, stderr=stderr, output_dir=OUTPUT)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.floats() | st.integers(-(2**60), 2**60) | st.none(), max_size=5))
def test_finite_metrics_are_kept_and_others_omitted(metrics: dict[str, float | None]) -> None:
    """Every finite number is kept as the nearest double; null, NaN and infinities are omitted."""
    end = judge(stdout=json.dumps({"metrics": metrics}).encode())
    assert end.error_kind is None
    assert end.metrics == {
        name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)
    }


@settings(deadline=None)
@given(JSON, JSON)
def test_any_result_completes_the_run_or_fails_it_with_a_reason(metrics: Any, artifacts: Any) -> None:
    """Whatever JSON a simulation writes, the run completes, or fails with a message; no exception is raised."""
    end = judge(file=json.dumps({"metrics": metrics, "artifacts": artifacts}).encode())
    assert (end.error_kind is None) == (end.message == "")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_no_exception(garbage: bytes) -> None:
    """On stdout and stderr they are log lines; as the result file they fail the run unless they happen to be valid."""
    assert judge(stdout=garbage).error_kind is None
    assert judge(1, stderr=garbage).error_kind is model.ErrorKind.SIMULATION
    assert judge(file=garbage).error_kind in (None, model.ErrorKind.SIMULATION)


@pytest.mark.parametrize(
    ("stdout", "expected"),
    [
        (b'{"metrics": {"a": 1}}\n{"metrics": {"a": 2}}\n', {"a": 2.0}),
        (b'{"metrics": {"a": 1}}\nbye\n{"level": "info"}\n{broken\n', {"a": 1.0}),
        (b'  {"metrics": {"a": 1}}  ', {"a": 1.0}),
        (b'[{"metrics": {"a": 1}}]\n', {}),
        (b"", {}),
    ],
)
def test_the_last_result_line_is_the_result(stdout: bytes, expected: dict[str, float]) -> None:
    """The result is the last line that is an object with metrics or artifacts, whatever log lines surround it."""
    assert judge(stdout=stdout) == model.RunEnd(metrics=expected)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (b"{", "result.json is not JSON"),
        (b"\xff", "result.json is not JSON"),
        (b"[]", "result.json is not an object"),
        (b" " * (result.RESULT_LIMIT_BYTES + 1), "result.json is larger than"),
        (b'{"metrics": []}', "metrics is not an object"),
        (b'{"metrics": {"a": "1"}}', "metric 'a' is not a number"),
        (b'{"metrics": {"a": true}}', "metric 'a' is not a number"),
        (b'{"metrics": {"a": 1' + b"0" * 400 + b"}}", "metric 'a' is too large for a double"),
        (b'{"artifacts": {"a": 1}}', "artifacts is not an object of strings"),
        (b"[" * 100_000, "result.json is not JSON"),
        (rb'{"metrics": {"\ud800": 1}}', "is not Unicode text"),
        (rb'{"artifacts": {"a": "s3://\udfff"}}', "is not Unicode text"),
    ],
)
def test_an_unusable_result_fails_the_run_with_the_reason(file: bytes, message: str) -> None:
    """A run with an unusable result has failed, although its exit code is 0."""
    end = judge(file=file)
    assert end.error_kind is model.ErrorKind.SIMULATION
    assert message in end.message


def test_artifacts_become_uris() -> None:
    """URIs are unchanged; paths become file URIs, and relative paths start at the output directory."""
    artifacts = {"a": "s3://b/k", "b": "x y.csv", "c": "/abs/z", "d": "sub/é"}
    assert judge(stdout=json.dumps({"artifacts": artifacts}).encode()).artifacts == {
        "a": "s3://b/k",
        "b": "file:///data/run/output/x%20y.csv",
        "c": "file:///abs/z",
        "d": "file:///data/run/output/sub/%C3%A9",
    }


@pytest.mark.parametrize(
    ("code", "kind", "retryable"),
    [
        (1, model.ErrorKind.SIMULATION, None),
        (2, model.ErrorKind.SIMULATION, None),
        (64, model.ErrorKind.SIMULATION, None),
        (65, model.ErrorKind.INFEASIBLE, False),
        (126, model.ErrorKind.INFRASTRUCTURE, False),
        (127, model.ErrorKind.INFRASTRUCTURE, False),
        (128, model.ErrorKind.SIMULATION, None),
        (137, model.ErrorKind.INFRASTRUCTURE, None),
        (143, model.ErrorKind.INFRASTRUCTURE, None),
    ],
)
def test_an_exit_code_determines_the_error_kind(code: int, kind: model.ErrorKind, retryable: bool | None) -> None:
    """Each exit code has the error kind that the documentation names, and the message is never empty."""
    for stderr in (b"", b"a reason\n"):
        end = judge(code, stderr=stderr)
        assert (end.error_kind, end.retryable, end.state) == (kind, retryable, model.State.FAILED)
        assert end.message


def test_the_message_is_the_end_of_stderr() -> None:
    """It has the last ten lines, and at most two thousand characters."""
    end = judge(1, stderr="\n".join(f"line {number}" for number in range(100)).encode())
    assert end.message.splitlines() == [f"line {number}" for number in range(90, 100)]
    assert len(judge(1, stderr=b"x" * 10_000).message) == 2000
