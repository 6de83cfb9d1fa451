"""Plans that are made to cost: each is refused, or counted, within four million steps and 50 MB."""

import json
import tracemalloc
from itertools import islice

import pytest

from ems_worker import errors
from ems_worker.adapters import yaml_reader
from ems_worker.core.points import plan, space
from tests.support import steps

SMALL = "experiment_name: x\nbase_config: {a: 0, b: 0}\n"
WIDE = f"experiment_name: x\nbase_config: {{{', '.join(f'p{n}: 0' for n in range(2000))}}}\n"


def _space(axis: str, first: int = 0, last: int = 2000) -> str:
    """Two thousand axes. N stands for the number of an axis, M for the number of the next."""
    axes = (f"p{n}: {axis.replace('N', str(n)).replace('M', str(n + 1))}" for n in range(first, last))
    return f"{WIDE}parameter_space: {{{', '.join(axes)}}}\n"


def _range(num: int) -> str:
    return f"{{range: {{start: 1, stop: {num}, num: {num}}}}}"


def _entry(number: int) -> str:
    """One of many spaces: each has eleven paths of its own."""
    return f"{{parameter_space: {{{', '.join(f'p{n}: [1]' for n in range(11 * number, 11 * number + 11))}}}}}"


SQUARE = f"{SMALL}parameter_space: {{a: {_range(300)}, b: {_range(300)}}}\n"
SAMPLED = f"{SMALL}parameter_space: {{a: {{dist: uniform, low: 0, high: 1}}}}\n"
NAMES = " + ".join(f"p{n}" for n in range(31))


def _listed(constraint: str, **base: object) -> str:
    """Two axes and a constraint over lists, in JSON because YAML plans can't have such long lists."""
    space = {name: {"range": {"start": 1, "stop": 300, "num": 300}} for name in "ab"}
    plan = {"experiment_name": "x", "base_config": {"a": 0, "b": 0, **base}, "parameter_space": space}
    return json.dumps({**plan, "constraints": [constraint]})


def _left_out(axes: int, samples: int) -> str:
    """Sampled axes with conditions that differ at each sample."""
    conditional = {f"p{n}": {"dist": "choice", "values": [1, 2], "when": f"x // {2**n} % 2 == 0"} for n in range(axes)}
    space = {"x": {"dist": "int", "low": 0, "high": 2**40}, **conditional}
    plan = {"experiment_name": "x", "base_config": dict.fromkeys(space, 0), "parameter_space": space}
    return json.dumps({**plan, "design": {"samples": samples}})


_LETTERS = "x" * 999

# Each plan with the code of its first problem; None: it is accepted.
HOSTILE: dict[str, tuple[str, str | None]] = {
    "a gigantic range": (
        f"{SMALL}parameter_space: {{a: {{range: {{start: 0, stop: 1.0e+308, step: 1.0e-300}}}}}}",
        "too_many_points",
    ),
    "gigantic products": (_space("{range: {start: 0, stop: 1000000, num: 1000000}}"), "too_many_points"),
    "gigantic logarithms": (_space("{logrange: {start: 1, stop: 9, num: 4000000000}}"), "too_many_points"),
    "many misspelt paths": (
        f"{WIDE}parameter_space: {{{', '.join(f'q{n}: [1]' for n in range(2000))}}}",
        "unknown_path",
    ),
    "many new paths": (
        f"{SMALL}allow_new_paths: true\nruns: [{', '.join(f'{{params_override: {{q{n}: 1}}}}' for n in range(5_000))}]",
        None,
    ),
    "many unknown keys": (SMALL + "".join(f"key{n}: 1\n" for n in range(5_000)), "unknown_key"),
    "many wrong runs": (f"{SMALL}runs: [{', '.join(['{run_id_suffix: a, lables: {}}'] * 2_000)}]", "unknown_key"),
    "a long chain": (_space('{expr: "pM + pM"}', 0, 400), "too_deep"),
    "two thousand expressions": (_space(f'{{expr: "{NAMES}"}}', 31), "out_of_range"),
    "all axes coupled": (f'{_space("[0, 1]", 0, 31)}constraints: ["{NAMES} > 40"]', "no_points"),
    "a sum of many axes": (
        f'{_space("[0, 1, 2, 3]", 0, 900)}constraints: ["{"+".join(f"p{n}" for n in range(900))} <= 2"]',
        None,
    ),
    "a product of many axes": (
        f'{_space("[0.5, 1]", 0, 1900)}constraints: ["{"*".join(f"p{n}" for n in range(1900))} > 0.1"]',
        None,
    ),
    "a constraint that never holds": (f'{SQUARE}constraints: ["a * b < 0"]', "no_points"),
    "a costly constraint": (f'{SQUARE}constraints: ["{" + ".join(["max(a ** 2.5, b)"] * 30)} < 0"]', None),
    "a tower of powers": (f'{SQUARE}constraints: ["9 ** 9 ** 9 ** 9 ** a > b"]', "expression_fails"),
    "a bomb of text": (f"{SQUARE}constraints: [\"'a' * 999999999 == 'b'\"]", "expression_fails"),
    "a rounding to a gigantic power": (f'{SQUARE}constraints: ["round(5, -1000000000) == 0"]', "expression_fails"),
    "a sum over a long list": (_listed("sum(w) > a", w=[0.5] * 200_000), "out_of_range"),
    "sums over lists": (_listed(f"max({', '.join(['sum(w)'] * 100)}) > a", w=[0.5] * 1000), None),
    "searches among long texts": (
        _listed(f"{' or '.join(['t in v'] * 99)} or a > b", v=[_LETTERS + "y"] * 999, t=_LETTERS + "z"),
        None,
    ),
    "many spaces of many paths": (
        f"{WIDE}parameter_space: [{', '.join(_entry(n) for n in range(100))}]",
        "out_of_range",
    ),
    "many spaces that meet": (
        f"{SMALL}parameter_space: [{', '.join([f'{{parameter_space: {{a: {_range(900)}}}}}'] * 100)}]",
        None,
    ),
    "many spaces that are slow to count": (
        f"{SMALL}constraints: [sin(a * b) > 0]\n"
        f"parameter_space: [{', '.join([f'{{parameter_space: {{a: {_range(900)}, b: {_range(900)}}}}}'] * 100)}]",
        None,
    ),
    "a derived value of a gigantic range": (
        f"{SMALL}parameter_space: {{a: {_range(4_000_000_000)}, b: {{expr: a * 2}}}}",
        "too_many_combinations",
    ),
    "samples left out in many ways": (_left_out(14, 20_000), None),
    "nested parentheses": (f'{SQUARE}constraints: ["{"(" * 490}a{")" * 490} > 1"]', "bad_expression"),
    "countless samples": (f"{SAMPLED}design: {{samples: 99999999999}}", "out_of_range"),
    "many samples": (f"{SAMPLED}design: {{samples: 4194304}}", None),
    "many dimensions": (
        f"{_space('{dist: uniform, low: 0, high: 1}')}design: {{sampler: sobol, samples: 2000}}",
        "out_of_range",
    ),
    "countless replicates": (f"{SMALL}num_replicates_per_run: 999999999999", "out_of_range"),
    "a path without end": (f"{SMALL}parameter_space: {{{'a.' * 450}a: [1]}}", "bad_path"),
}


def _decide(text: str) -> str | None:
    document = yaml_reader.read_plan(text.encode())
    try:
        space.count(plan.parse(document.data))
    except errors.PlanRejected as rejected:
        problems = yaml_reader.with_positions(rejected.problems, document)
        return problems[1 if problems[0].code == "too_many_problems" else 0].code
    return None


# Counting the steps of these takes a second each, and so does tracing their memory.
COSTLY = (
    "gigantic products",
    "gigantic logarithms",
    "many misspelt paths",
    "two thousand expressions",
    "all axes coupled",
    "a constraint that never holds",
    "a costly constraint",
    "a sum over a long list",
    "sums over lists",
    "searches among long texts",
    "many dimensions",
)


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_plan_is_decided(name: str) -> None:
    """Each is accepted, or refused for the reason that is meant."""
    text, code = HOSTILE[name]
    assert _decide(text) == code


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in COSTLY else []) for name in HOSTILE]
)
def test_a_hostile_plan_is_decided_in_few_steps(name: str) -> None:
    """Four million steps are about a second of work."""
    assert steps.of(lambda: _decide(HOSTILE[name][0])) < 4_000_000


@pytest.mark.usefixtures("untraced")
@pytest.mark.parametrize(
    "name",
    [
        "many samples",
        pytest.param("all axes coupled", marks=pytest.mark.long),
        pytest.param("many dimensions", marks=pytest.mark.long),
        pytest.param("two thousand expressions", marks=pytest.mark.long),
        "a derived value of a gigantic range",
    ],
)
def test_a_hostile_plan_is_decided_in_little_memory(name: str) -> None:
    """The plans that would unfold to the most take less than 50 MB."""
    tracemalloc.start()
    try:
        _decide(HOSTILE[name][0])
        assert tracemalloc.get_traced_memory()[1] < 50 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("untraced")
def test_a_million_points_stream_through_little_memory() -> None:
    """Points are not kept: making twenty thousand of a million takes less than 1 MB."""
    text = f"{SMALL}parameter_space: {{a: {_range(1000)}, b: {_range(1000)}}}"
    large = plan.parse(yaml_reader.read_plan(text.encode()).data)
    assert space.count(large).points == 1_000_000
    tracemalloc.start()
    try:
        assert sum(1 for _ in islice(space.points(large, 500_000), 20_000)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 1024 * 1024
    finally:
        tracemalloc.stop()
