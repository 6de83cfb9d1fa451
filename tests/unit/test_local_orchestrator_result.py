"""What exit codes and outputs mean: the simulator protocol as a pure function."""

import json
import math
from pathlib import PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ems_worker.local.orchestrator import model, result, simulation

OUTPUT = PurePosixPath("/data/run/output")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def judge(exit_code: int = 0, stdout: bytes = b"", *, file: bytes | None = None, stderr: bytes = b"") -> model.RunEnd:
    """The outcome of a simulation that ended so."""
    return result.judge(exit_code, stdout, file, stderr, OUTPUT)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=8), st.floats() | st.integers(-(2**60), 2**60) | st.none(), max_size=5))
def test_finite_metrics_arrive_and_others_are_left_out(metrics: dict[str, float | None]) -> None:
    """Every finite number arrives as the double it is; null, NaN and infinities don't."""
    outcome = judge(stdout=json.dumps({"metrics": metrics}).encode())
    assert outcome.error_kind is None
    assert outcome.metrics == {
        name: float(value) for name, value in metrics.items() if value is not None and math.isfinite(value)
    }


@settings(deadline=None)
@given(JSON, JSON)
def test_any_result_is_used_or_refused_with_words(metrics: Any, artifacts: Any) -> None:
    """Whatever a simulation writes, the outcome is completed, or failed with what is wrong; never an exception."""
    outcome = judge(file=json.dumps({"metrics": metrics, "artifacts": artifacts}).encode())
    assert (outcome.error_kind is None) == (outcome.message == "")


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_any_output_is_no_exception(garbage: bytes) -> None:
    """Bytes of any kind on stdout are logs to skip, as a file they are a failure at worst."""
    assert judge(stdout=garbage).error_kind is None
    assert judge(1, stderr=garbage).error_kind is model.ErrorKind.SIMULATION
    judge(file=garbage)


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
def test_the_last_result_line_counts(stdout: bytes, expected: dict[str, float]) -> None:
    """The last line that is an object with metrics or artifacts is the result; logs around it don't matter."""
    assert judge(stdout=stdout) == model.RunEnd(metrics=expected)


@pytest.mark.parametrize(
    ("file", "words"),
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
def test_an_unusable_result_fails_the_run_and_says_why(file: bytes, words: str) -> None:
    """A run whose result can't be used has failed, though it exited with 0."""
    outcome = judge(file=file)
    assert outcome.error_kind is model.ErrorKind.SIMULATION
    assert words in outcome.message


def test_artifacts_are_uris() -> None:
    """What has a scheme stays; paths become file URIs, relative ones from the output directory."""
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
def test_an_exit_code_has_its_kind(code: int, kind: model.ErrorKind, retryable: bool | None) -> None:
    """Each exit code leads to the kind that the documentation names, always with a message."""
    for stderr in (b"", b"words\n"):
        outcome = judge(code, stderr=stderr)
        assert (outcome.error_kind, outcome.retryable, outcome.state) == (kind, retryable, model.State.FAILED)
        assert outcome.message


def test_the_message_is_the_end_of_what_was_said() -> None:
    """Of a long complaint the last ten lines are told, within two thousand characters."""
    outcome = judge(1, stderr="\n".join(f"line {number}" for number in range(100)).encode())
    assert outcome.message.splitlines() == [f"line {number}" for number in range(90, 100)]
    assert len(judge(1, stderr=b"x" * 10_000).message) == 2000


def test_placeholders_are_filled_and_other_braces_stay() -> None:
    """Only the four names are placeholders; a command line may have braces of its own."""
    command = simulation.Command.parse("""sim -c {config} 's={seed}' '{"json": 1}' {other}""")
    values = {"config": "/a b/c.yaml", "seed": "7"}
    assert command.filled(values) == ["sim", "-c", "/a b/c.yaml", "s=7", '{"json": 1}', "{other}"]


@pytest.mark.parametrize("text", ["", "  ", "sh 'open"])
def test_an_unusable_command_line_is_refused(text: str) -> None:
    """An empty command line, or one with an open quote, is an error at the start, not at the first run."""
    with pytest.raises(ValueError, match=r"empty|No closing quotation"):
        simulation.Command.parse(text)
