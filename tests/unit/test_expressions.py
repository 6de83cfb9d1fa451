"""Expressions: their values, and the syntax and values that they must not have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core import canonical
from ems_worker.core.language import decimals, expressions
from tests.support import steps

JSON = canonical.JSON


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("7 / 2", 3.5),
        ("7 // 2", 3),
        ("7 % 4", 3),
        ("2 ** 10", 1024),
        ("2 ** -1", 0.5),
        ("2.0 ** 3", 8.0),
        ("-3 + +1", -2),
        ("1e-3 * 1000", 1.0),
        (".5 + 5.", 5.5),
        ("1 < 2 < 3", True),
        ("3 < 2 < 5", False),
        ("3 >= 3 and 1 != 2", True),
        ("not true or false", False),
        ("null == None", True),
        ("True", True),
        ("'a' + \"b\"", "ab"),
        ("'abc' == 'abc'", True),
        ("2 in [1, 2]", True),
        ("2 not in (1, 3)", True),
        ("'b' in 'abc'", True),
        ("'x' in ['y', 'z']", False),
        ("1 if 2 > 1 else 5", 1),
        ("abs(-2)", 2),
        ("ceil(1.2) + floor(1.8)", 3),
        ("max(1, 5, 3) - min(2, 4)", 3),
        ("round(2.567, 1)", 2.6),
        ("round(2.5) + round(2.6, null)", 5),
        ("round(1234, -2)", 1200),
        ("sum([1, 2], 0.5)", 3.5),
        ("sqrt(16)", 4.0),
        ("exp(0)", 1.0),
        ("log(exp(1))", 1.0),
        ("log(8, 2)", 3.0),
        ("log10(1000)", 3.0),
        ("log2(8)", 3.0),
        ("sin(0) + cos(0) + tan(0)", 1.0),
        ("int(2.9)", 2),
        ("float(2)", 2.0),
        ("str(true) + str(5) + str(null)", "true5null"),
        ("len('abc')", 3),
        ("sum([1, 2, 3])", 6),
        ("  1\n+\t1 ", 2),
        ("-1 in [-1, 1] and +1 in (-1, +1) and 0 - 0.5 in [-0.5] and 1 not in [-1]", True),
        ("1" + " - 1" * 1_999, -1_998),
        ("-".join(["(7.0"] * 40) + ")" * 40, 0.0),
        (" and ".join(["true"] * 1_000), True),
    ],
)
def test_an_expression_has_a_value(text: str, expected: object) -> None:
    """It may contain arithmetic, comparisons, logic, membership, choices and functions."""
    value = expressions.read(text).evaluate(())
    assert value == expected
    assert type(value) is type(expected)


def test_a_dotted_path_is_one_name() -> None:
    """A path may lead to a list element; names are distinct, in the order of their first use."""
    expression = expressions.read("species.0.speed * fish.count + fish.count > a_1 and true")
    assert expression.names == ("species.0.speed", "fish.count", "a_1")
    assert expression.holds((2.0, 3, 8.5))
    assert not expression.holds((2.0, 3, 9))


def test_a_parameter_may_be_a_list() -> None:
    """Expressions can use its length, its sum and its elements."""
    values: list[decimals.Operand] = [[1, 2, 3]]
    assert expressions.read("sum(w) / len(w)").evaluate(values) == 2.0
    assert expressions.read("2 in w").evaluate(values) is True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a complete"),
        ("1 +", "not a complete"),
        ("(1", "not a complete"),
        ("a b", "not a complete"),
        ("1 if 2", "not a complete"),
        ("a = 1", "=="),
        ("a & b", "'and'"),
        ("a | b", "'or'"),
        ("!a", "'not"),
        ("a ^ 2", "[*][*]"),
        ("a; b", "expressions have no"),
        ("a[0]", "no brackets after a name"),
        ("a.b()", "no function 'a.b'"),
        ("f(x)", "no function 'f'"),
        ("abs(*a)", "no starred"),
        ("(abs)(1)(2)", "only functions"),
        ("'a'(1)", "only functions"),
        ("[a]", "a list contains"),
        ("1, a", "a list contains"),
        ("{1: 2}", "have no"),
        ("1_000", "have no"),
        ("0x10", "have no"),
        ("5fish", "have no"),
        ("é", "have no"),
        ("`a`", "have no"),
        ("'a\\n'", "have no"),
        ("1e999", "not finite"),
        ("9" * 100, "too large"),
        ("-" * 50 + "1", "nested"),
        ("1" * 20_001, "at most 20,000 characters"),
        ("1+" * 2_000 + "1", "at most 4,000 names"),
        ("1 ** " * 50 + "1", "nested"),
        ("2 * (" * 50 + "1" + ")" * 50, "nested"),
        ("a in [-'b']", "a list contains"),
        ("a in [-true]", "a list contains"),
        ("a in [--1]", "a list contains"),
        ("a in [not 1]", "a list contains"),
        ("a in [1 - 1]", "a list contains"),
        ("lambda x", "not a complete"),
        ("a.__class__()", "no function"),
        ("(" * 400 + "1" + ")" * 400, "not a complete"),
    ],
)
def test_invalid_syntax_is_refused(text: str, message: str) -> None:
    """Reading an expression never evaluates any part of it, and the message helps to correct it."""
    with pytest.raises(expressions.ExpressionError, match=message):
        expressions.read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 / 0", "division by zero"),
        ("1 % 0", "division by zero"),
        ("0 ** -1", "division by zero"),
        ("sqrt(-1)", "domain"),
        ("(-8) ** 0.5", "no real value"),
        ("exp(1000)", "range"),
        ("1e308 * 10", "not finite"),
        ("2 ** 300", "too large"),
        ("9 ** 9 ** 9 ** 9", "too large"),
        ("2 ** 70", "64 bits"),
        ("0 - 2 ** 63 - 1", "64 bits"),
        ("'a' * 3", "can't be calculated"),
        ("1 + true", "can't be calculated"),
        ("-'a'", "can't be calculated"),
        ("+'a'", "can't be calculated"),
        ("'a' + 1", "can't be calculated"),
        ("1 < 'a'", "the number 1 can't be compared with the text 'a'"),
        ("[1, 2]", "value is a list"),
        ("sqrt('a')", "sqrt can't be calculated from the text 'a'"),
        ("int('x')", "invalid literal"),
        ("len(5)", "len can't be calculated from the number 5"),
        ("1 in 5", "needs a list or a text"),
        ("1 not in 5", "needs a list or a text"),
        ("str([1])", "no text"),
        ("abs(1, 2)", "abs can't be calculated from the number 1 and the number 2"),
        ("float('nan')", "not finite"),
        ("float('1e999') > 1", "not finite"),
        ("int(1e300) > 0", "too large"),
        ("ceil(1e300) - floor(1e300) == 0", "too large"),
        ("round(5, -1000000000) == 0", "round takes -15 to 15 digits, not the number -1000000000"),
        ("round(5, 16)", "round takes"),
        ("round(5, 1.0)", "round takes"),
        ("round(5, true)", "round takes"),
        ("round('a')", "round can't be calculated from the text 'a'"),
        ("sum('a')", "list of numbers"),
        ("sum([1, 2], 'a')", "list of numbers"),
        ("sum(['a'])", "the number 0 [+] the text 'a' can't be calculated"),
        ("int('" + "9" * 900 + "') > 1", "too large"),
        ("2 ** 200 * 2 ** 200 > 1", "too large"),
        (
            "'" + "a" * 600 + "' + '" + "b" * 300 + "' + str('" + "c" * 20 + "') + 'd' + '" + "e" * 20 + "' * 2",
            "can't be calculated",
        ),
    ],
)
def test_an_expression_without_a_value_is_an_error_with_the_reason(text: str, message: str) -> None:
    """The value must be real, finite and limited in size; no expression makes the worker fail."""
    with pytest.raises(expressions.ExpressionError, match=message):
        expressions.read(text).evaluate(())


def test_a_text_has_at_most_1000_characters() -> None:
    """Adding texts can't make a longer one."""
    with pytest.raises(expressions.ExpressionError, match="too long"):
        expressions.read("a + a").evaluate(("x" * 501,))
    assert expressions.read("a + a").evaluate(("x" * 500,)) == "x" * 1000


def test_a_condition_is_true_or_false() -> None:
    """A number is not a condition: writing `a` instead of `a > 0` is an error."""
    with pytest.raises(expressions.ExpressionError, match="must be true or false"):
        expressions.read("a").holds((1,))
    assert expressions.read("a").holds((True,))


@pytest.mark.parametrize(
    "text",
    [
        "().__class__.__bases__[0].__subclasses__()",
        "a.__class__.__mro__",
        "__builtins__",
        "__import__('os').system('true')",
        "open('/etc/passwd')",
        "eval('1')",
        "exec('1')",
        "getattr(a, 'b')",
        "(lambda: 1)()",
        "[x for x in range(9)]",
        "(x := 5)",
        "f'{a}'",
        "'{0.__class__}'.format(a)",
        "globals()",
        "print(1)",
        "a.format('x')",
        "yield 1",
        "await a",
        "import os",
        "del a",
        "...",
    ],
)
def test_an_expression_never_reaches_python(text: str) -> None:
    """Such syntax is refused, or is only the name of a parameter."""
    try:
        names = expressions.read(text).names
    except expressions.ExpressionError:
        return
    assert text in names


@given(st.text(st.sampled_from("0123456789.+-*/%()<>=!abeo '\",[]nrtduTF_"), max_size=80))
def test_any_text_is_an_expression_or_refused_in_few_steps(text: str) -> None:
    """No text raises another exception than ours, or takes more than 100,000 steps."""

    def attempt() -> None:
        try:
            expression = expressions.read(text)
            expression.evaluate([3] * len(expression.names))
        except expressions.ExpressionError:
            pass

    assert steps.of(attempt) < 100_000
