"""Metrics of a program that knows nothing of the simulator protocol."""

import json
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.local.orchestrator import found, result


@pytest.mark.parametrize(
    ("stdout", "metrics"),
    [
        (b'{"loss": 1}\nepoch 2\n{"loss": 0.5, "name": "x", "ok": true, "bad": NaN}\nbye', {"loss": 0.5}),
        (b'{"loss": 0.5}\n{"level": "info"}\n', {"loss": 0.5}),
        (b"score=0.5\nscore=0.75\nloss=1e-3\n", {"score": 0.75, "loss": 0.001}),
        (b"loss=0.5, acc = .25; top@5=1\n", {"loss": 0.5, "acc": 0.25, "top@5": 1.0}),
        (b"epoch 3 loss=0.5\nlr=0.1 is fine\n", {}),
        (b"loss=nan acc=0.5\nbig=1e999\n", {"acc": 0.5}),
        (b'{"loss": 1e999}\nscore=1', {"score": 1.0}),
        (b'{"count": 1' + b"0" * 400 + b"}", {}),
        (b"[1, 2]\n{broken\n\xff\xfe=1\n", {}),
        (b"", {}),
    ],
)
def test_numbers_in_the_output_are_found(stdout: bytes, metrics: dict[str, float]) -> None:
    """The last line that is a JSON object with numbers counts, else all lines that have only NAME=NUMBER."""
    assert found.metrics(stdout, None) == metrics


@pytest.mark.parametrize(
    ("file", "metrics"),
    [
        (b'{"score": 2}', {"score": 2.0}),
        (b'{"metrics": {"score": 3}, "other": 1}', {"score": 3.0}),
        (b'{"\\ud800": 1, "a\\u0000": 1, "": 1}', {"loss": 1.0}),
        (b"[1]", {"loss": 1.0}),
        (b"{", {"loss": 1.0}),
        (b'{"score": 1}' + b" " * found.LIMIT_BYTES, {"loss": 1.0}),
    ],
)
def test_a_file_of_metrics_comes_before_the_output(file: bytes, metrics: dict[str, float]) -> None:
    """A file that has no numbers is one of the program's own."""
    assert found.metrics(b"loss=1", file) == metrics


def test_the_protocol_comes_first() -> None:
    """A line with `metrics` is the result, whatever else the program writes."""
    stdout = b'{"metrics": {"a": 1}}\n{"b": 2}\nc=3\n'
    end = result.judge(
        0, stdout=stdout, result_file=None, stderr=b"", output_dir=PurePosixPath("/o"), metrics_file=b'{"d": 4}'
    )
    assert end.metrics == {"a": 1.0}


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_arbitrary_bytes_raise_no_exception(stdout: bytes, file: bytes) -> None:
    """They are a program's output."""
    json.dumps(found.metrics(stdout, file), allow_nan=False)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("number", ["1" * 250_000, "1" * 125_000 + "." + "1" * 125_000])
def test_a_long_line_that_is_no_number_takes_no_longer_than_another(number: str) -> None:
    """The time grows with its length, not with the square of that."""
    assert found.metrics(f"a={number}x\n".encode(), None) == {}
