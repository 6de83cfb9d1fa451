"""Numbers in expressions are the decimals that a plan writes."""

import decimal
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import canonical
from ems_worker.core.language import decimals, expressions, ranges
from ems_worker.core.points import operands, space
from tests.support import settled, steps
from tests.support.small_plans import params, parsed

JSON = canonical.JSON
TENTHS = "{range: {start: 0, stop: 1, step: 0.1}}"


def value(text: str, *given: JSON) -> object:
    """The value of an expression whose names have these values in a plan."""
    return expressions.read(text).evaluate([decimals.exact(each) for each in given])


@pytest.mark.parametrize(
    ("axes", "constraint", "points"),
    [
        (f"a: {TENTHS}, b: {TENTHS}, c: {TENTHS}", "a + b + c == 1", 66),
        (f"a: {TENTHS}, b: {TENTHS}, c: {{expr: 1 - a - b}}", "c >= 0", 66),
        (f"a: {TENTHS}", "a % 0.1 == 0", 11),
        ("a: [0.1], b: [0.2]", "a + b == 0.3", 1),
        ("a: [0.1, 0.2], list: [[0.1, 0.2], [0.3]]", "a in list and sum(list) == 0.3 and min(list) == 0.1", 2),
    ],
)
def test_constraints_hold_for_the_decimals_as_written(axes: str, constraint: str, points: int) -> None:
    """No rounding of binary fractions decides which combinations are points."""
    made = parsed(f"{{parameter_space: {{{axes}}}, constraints: ['{constraint}']}}")
    assert settled.size(made).points == len(list(space.points(made))) == points


def test_a_derived_value_is_the_shortest_decimal() -> None:
    """A simplex's last coordinate is 0.2, not 0.19999999999999996, and never -0."""
    found = params(f"{{parameter_space: {{a: {TENTHS}, b: {TENTHS}, c: {{expr: 1 - a - b}}}}, constraints: [c >= 0]}}")
    assert {point["c"] for point in found} == {index / 10 for index in range(11)}
    assert found[7] == {"a": 0.0, "b": 0.7, "c": 0.3}
    assert next(point for point in found if (point["a"], point["b"]) == (0.1, 0.7))["c"] == 0.2


def test_overrides_of_runs_and_the_base_configuration_are_decimals_too() -> None:
    """So are the values that a list of them has inside."""
    base: dict[str, JSON] = {"a": 0, "b": 0, "c": 0, "base": 0.2, "list": [1, 1], "d": {"x": 0}}
    text = """{runs: [{params_override: {a: 0.1, list: [0.1, 0.2]}}, {params_override: {a: 0.3, list: [0.1]}}],
    parameter_space: {b: {expr: a + base}, c: {expr: sum(list) + list.0}}, constraints: [base + a == 0.3]}"""
    [point] = space.points(parsed(text, base))
    assert (point.params["b"], point.params["c"]) == (0.3, 0.4)
    mappings = "{parameter_space: {d: [{x: 0.1}, {x: 0.3}], a: {expr: d.x - 0.1}}, constraints: [a > 0]}"
    assert [point.params["a"] for point in space.points(parsed(mappings, base))] == [0.2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 - 0.1 - 0.7", 0.2),
        ("0.1 * 3 == 0.3", True),
        ("0.1 + 0.2 == 0.3", True),
        ("0.3 - 0.2 - 0.1", 0.0),
        ("7 / 2", 3.5),
        ("6 / 2", 3.0),
        ("1 / 3", 1 / 3),
        ("7 // 2", 3),
        ("1 // 0.1", 10.0),
        ("-7.5 // 2", -4.0),
        ("-7.5 % 2", 0.5),
        ("7.5 % -2", -0.5),
        ("-7 // 2", -4),
        ("-7 % 3", 2),
        ("1e300 % 0.1", 0.0),
        ("-1e-300 % 1", 1.0),
        ("2 ** 3.0", 8.0),
        ("1.1 ** 2 == 1.21", True),
        ("0.2 ** -1", 5.0),
        ("0.0 ** 0", 1.0),
        ("1 ** 300", 1),
        ("4 ** 0.5", 2.0),
        ("0.0 * -1", 0.0),
        ("-0.0", 0.0),
        ("-(0.0) == 0 and str(-0.0) == '0.0'", True),
        ("1 / 3 == 0.3333333333333333", False),
        ("round(1 / 3, 9) == 0.333333333", True),
        ("+0.5 - -0.5", 1.0),
        ("abs(0.1 - 0.3)", 0.2),
        ("round(2.675, 2)", 2.68),
        ("round(1234.5, -2)", 1200.0),
        ("round(sqrt(2), 2) == 1.41", True),
        ("floor(0.1 * 30) + ceil(0.1 * 30)", 6),
        ("int(0.1 * 30)", 3),
        ("float(1) + 0.1 + 0.2", 1.3),
        ("float('0.1') + float(true) + 0.2 == 1.3", True),
        ("float(sqrt(4))", 2.0),
        ("min(0.1 + 0.2, 0.3, 1) == max(0.3, 0.1)", True),
        ("max(sqrt(0.01), 0.1) == 0.1", True),
        ("sum([0.1, 0.2, 0.7])", 1.0),
        ("sum([1, 2, true])", 4),
        ("sum([1, 0.5], sqrt(4))", 3.5),
        ("str(0.1 + 0.2) + str(sqrt(4)) + str('x')", "0.32.0x"),
        ("sqrt(0.01) == 0.1 and sqrt(0.01) in [0.1]", True),
        ("sqrt(2) * sqrt(2) == 2", False),
        ("sqrt(4) * 0.1 + 1", 1.2),
        ("sqrt(4) == 2 and sqrt(4) < 2.1", True),
        ("log(8, null) < log(9)", True),
        ("[0.1] == [0.1] and (1, 2) == [1, 2.0]", True),
        ("true == 1.0", True),
    ],
)
def test_arithmetic_is_exact_until_a_function_gives_a_float(text: str, expected: object) -> None:
    """Functions that choose, round or count keep numbers exact; the others give floats."""
    found = value(text)
    assert canonical.text(found) == canonical.text(expected)
    assert not isinstance(found, float) or math.copysign(1, found) == 1 or found < 0


FINITE = st.one_of(st.integers(-(10**6), 10**6), st.floats(-1e6, 1e6).map(lambda x: round(x, 4) + 0.0))
SIGNS = {"+": "__add__", "-": "__sub__", "*": "__mul__", "//": "__floordiv__", "%": "__mod__"}


def _fraction(number: int | float) -> Fraction:
    return Fraction(repr(number))


@given(FINITE, FINITE, st.sampled_from(sorted(SIGNS)))
def test_an_operation_gives_the_number_nearest_to_the_exact_result(a: float, b: float, sign: str) -> None:
    """Whole numbers stay whole. Quotients are rounded down, and a remainder has the sign of the divisor."""
    if sign in ("//", "%") and b == 0:
        return
    exact = Fraction(getattr(_fraction(a), SIGNS[sign])(_fraction(b)))
    found = value(f"a {sign} b", a, b)
    assert found == (int(exact) if type(a) is int and type(b) is int else float(exact))
    assert isinstance(found, int) == (type(a) is int and type(b) is int)


@given(FINITE, FINITE, st.sampled_from(["<", "<=", "==", "!=", ">=", ">"]))
def test_comparisons_are_exact(a: float, b: float, sign: str) -> None:
    """A whole number equals a decimal of the same value."""
    assert value(f"a {sign} b", a, b) is eval(f"x {sign} y", {"x": _fraction(a), "y": _fraction(b)})


def test_the_context_of_the_thread_changes_nothing() -> None:
    """Neither its digits, nor its rounding, nor its traps."""
    with decimal.localcontext(decimal.Context(prec=2, rounding=decimal.ROUND_UP, traps=[decimal.Inexact])):
        assert value("1 - 0.1 - 0.7 + 12345.678 * 1 + 1 / 3 - 1 / 3") == 12345.878
        assert value("round(abs(-12345.675), 2) + floor(12345.6) + int(12345.6) + -12345.6 // 1") == 24689.68
        assert value("round(12345.6) + ceil(12345.4) + len([12345.6]) + sum([0.125, 12345.5]) - 1") == 37037.625
        assert value("12345.675 > 12345.674 and max(12345.675, 12345.674) == 12345.675 and 12345.6 % 1 == 0.6")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1.5 ** 100000", "grows too large"),
        ("1e308 * 1e308 ** 30", "grows too large"),
        ("1e300 * 1e300", "not finite"),
        ("0.5 ** 1e99", "grows too large"),
        ("1.0 / 0", "division by zero"),
        ("0.0 / 0", "division by zero"),
        ("0.5 // 0", "division by zero"),
        ("0.5 % 0.0", "division by zero"),
        ("0.0 ** -2", "division by zero"),
        ("sqrt(4) / 0", "division by zero"),
        ("exp(1e300 * 1e300)", "not finite|range"),
        ("str(1e300 * 1e300)", "not finite"),
        ("(1e300 * 1e300) + 'a'", "the number 1E[+]600 [+] the text 'a'"),
        ("0.5 < 'a'", "the number 0.5 can't be compared with the text 'a'"),
        ("max(0.5, 'a')", "max can't be calculated from the number 0.5 and the text 'a'"),
        ("0.5 in 'a'", "a text contains only texts, not the number 0.5"),
        ("len()", "len can't be calculated from nothing"),
    ],
)
def test_a_number_that_is_too_large_or_not_real_is_an_error(text: str, message: str) -> None:
    """The reason is in words of the plan, and no operation takes many steps."""
    with pytest.raises(expressions.ExpressionError, match=message):
        value(text)


def test_the_largest_numbers_take_few_steps() -> None:
    """Remainders, quotients, powers and comparisons of the largest decimals are bounded."""
    largest = "(1e308 ** 19)"
    text = f"{largest} % 1e-300 < 1 and -{largest} // 1e300 < -{largest} / 1e301 and 1.0000001 ** 1e7 < 2 ** 2.0"
    assert steps.of(lambda: value(text)) < 10_000
    assert value(text) is True
    with pytest.raises(expressions.ExpressionError, match="too large"):
        value(f"floor({largest})")


def test_the_values_of_an_axis_are_converted_once() -> None:
    """Only those of very long axes are converted each time, so that they need no memory."""
    made = operands.Operands(ranges.by_step(0, 1, 0.1))
    assert made[3] == decimal.Decimal("0.3")
    assert steps.of(lambda: made[3]) < steps.of(lambda: made[4])
    assert made[1:3] == [decimal.Decimal("0.1"), decimal.Decimal("0.2")]
    assert len(made) == 11
    long = operands.Operands(ranges.by_count(0, 0.5, 100_001))
    assert long[100_000] == decimal.Decimal("0.5")
    assert long[2] == long[2] == decimal.Decimal("0.00001")
