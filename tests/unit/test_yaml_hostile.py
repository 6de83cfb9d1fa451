"""Hostile and arbitrary text: the reader refuses it with few steps and little memory, or reads it."""

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import scalars
from tests.support import steps
from tests.support.yaml_texts import refused


def _bomb() -> str:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [{', '.join(f'*a{n - 1}' for _ in range(9))}]" for n in range(1, 20)]
    return "\n".join(lines)


HOSTILE = {
    "alias bomb": (_bomb(), True),
    "alias bomb in a plan": (_bomb(), False),
    "merge bomb": ("a: &a {k: 1}\n" + "\n".join(f"b{n}: {{<<: [{', '.join(['*a'] * 9)}]}}" for n in range(99)), True),
    "deep flow": ("a: " + "[" * 1_000_000, False),
    "deep flow mappings": ("{a: " * 300_000, False),
    "deep blocks": ("\n".join(" " * n + "a:" for n in range(1500)), False),
    "deep json": ('{"a":' * 500_000, False),
    "deep aliases": ("a0: &a0 [1]\n" + "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 500)), True),
    "long number": ("a: 1." + "1" * 2_000_000 + "e999", False),
    "long json number": ('{"a": 1' + "0" * 2_000_000 + "}", False),
    "long exponent": ('{"a": 1e' + "9" * 1_000_000 + "}", False),
    "many duplicate keys": ("{" + "a: 1, " * 200_000 + "}", False),
    "unclosed quotes": ('a: "' + "x\n" * 500_000, False),
    "question marks": ("? " * 100_000, False),
}


@pytest.mark.usefixtures("untraced")
@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_is_refused_in_few_steps(name: str) -> None:
    """Two million calls take about half a second, however large the document that the text describes."""
    text, base = HOSTILE[name]
    data = text.encode()
    assert steps.of(lambda: refused(data, base=base)) < 2_000_000


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    # Tracing each of a million small allocations takes seconds.
    "name",
    [pytest.param(name, marks=[pytest.mark.long] if name == "deep json" else []) for name in HOSTILE],
)
def test_a_hostile_text_is_refused_in_little_memory(name: str) -> None:
    """Each takes less than 50 MB, however large the document that it describes."""
    text, base = HOSTILE[name]
    data = text.encode()
    tracemalloc.start()
    try:
        refused(data, base=base)
        assert tracemalloc.get_traced_memory()[1] < 50 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("text", ["a: [" + "1," * 20_000 + "]", "".join(f"k{n}: 1\n" for n in range(10_000))])
def test_yaml_is_read_in_few_steps_per_value(text: str) -> None:
    """The limit of keys and values therefore limits the time: it is the same for YAML and JSON."""
    assert steps.of(lambda: yaml_reader.read_plan(text.encode())) < 16 * 20_000


@pytest.mark.usefixtures("untraced")
def test_a_large_json_plan_is_read_in_few_steps_per_value() -> None:
    """Large plans come from programs, in JSON."""
    values = 50 * 1000
    data = json.dumps({"runs": [{"w": [n / 7 for n in range(1000)]} for _ in range(50)]}).encode()
    assert steps.of(lambda: yaml_reader.read_plan(data)) < 10 * values


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    """No input causes another exception."""
    for read in (yaml_reader.read_plan, yaml_reader.read_base):
        with contextlib.suppress(errors.PlanRejected, errors.Unreadable):
            assert isinstance(read(data).data, dict)


@given(st.text(st.sampled_from("{}[]:,-?&*!|>'\"%@`# \n\tab01<.~"), max_size=60))
def test_any_punctuation_is_read_or_refused(text: str) -> None:
    """Such texts come close to YAML."""
    test_any_bytes_are_read_or_refused.hypothesis.inner_test(text.encode())  # type: ignore[attr-defined]  # hypothesis adds it


def test_a_number_that_is_too_large_for_a_float_is_refused() -> None:
    """It would be read as infinity otherwise."""
    with pytest.raises(scalars.NotFiniteError):
        scalars.number("1e400")


TOKENS = ['"a"', '"b"', "1", "NaN", "9" * 30, '"\\ud800"', *"{}[],:"]


@given(st.lists(st.sampled_from(TOKENS), max_size=25).map("".join))
def test_any_tokens_of_json_are_a_document_or_problems(text: str) -> None:
    """An invalid value may precede the position at which the text stops being JSON."""
    for whole in (text, '{"k": {"a": 1, "a": ' + text):
        with contextlib.suppress(errors.PlanRejected):
            yaml_reader.read_plan(whole.encode())
