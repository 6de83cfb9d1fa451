"""The points of random plans are those of brute force: all combinations without those excluded, equal ones once."""

import itertools
import re
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import errors
from ems_worker.core import canonical
from ems_worker.core.points import plan, space
from ems_worker.core.points.work_limits import WorkLimits
from tests.support import settled

NAMES = "abcdef"
BASE: dict[str, Any] = {**dict.fromkeys(NAMES, 1), "p": 2, "q": 0}
NUMBERS = st.sampled_from(["0", "1", "2", "3"])
LIMITS = st.sampled_from([WorkLimits(), WorkLimits(early_steps=0), WorkLimits(early_steps=300)])


class NoValueError(Exception):
    """An expression has no value at a combination."""


def arithmetic(names: str) -> st.SearchStrategy[str]:
    """An expression with a number as its value, or without a value at some combinations."""
    leaf = st.one_of(st.sampled_from([*names]), NUMBERS)

    def inside(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from(["+", "+", "-", "*", "//", "%"]), inner),
            st.builds("int({} {} {})".format, inner, st.sampled_from(["!=", "<"]), inner),
            st.builds("max({}, {})".format, inner, inner),
        )

    return st.recursive(leaf, inside, max_leaves=5)


def condition(names: str) -> st.SearchStrategy[str]:
    """An expression that is true or false."""
    sides = arithmetic(names)
    comparison = st.one_of(
        st.builds("{} {} {}".format, sides, st.sampled_from(["<", "<=", "==", "!=", ">"]), sides),
        st.builds("{} <= {} < {}".format, sides, sides, sides),
        st.builds("{} in [0, 2]".format, sides),
    )

    def inside(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        return st.one_of(
            st.builds("({} {} {})".format, inner, st.sampled_from(["and", "or"]), inner),
            st.builds("not ({})".format, inner),
            st.builds("({} if {} else {})".format, inner, inner, inner),
        )

    return st.recursive(comparison, inside, max_leaves=3)


@dataclass
class Axis:
    """An axis with values, or with an expression for them."""

    values: list[int] | None
    expr: str | None
    when: str | None

    def document(self) -> dict[str, object]:
        given: dict[str, object] = {"values": self.values} if self.expr is None else {"expr": self.expr}
        return given if self.when is None else {**given, "when": self.when}


@dataclass
class Drawn:
    """A random plan. Axes are in the plan's order; each depends only on names that come before it in the alphabet."""

    axes: dict[str, Axis]
    group: list[str]
    runs: list[dict[str, int]]
    constraints: list[str]

    def document(self) -> dict[str, object]:
        data: dict[str, object] = {"experiment_name": "x", "base_config": BASE, "constraints": self.constraints}
        data["parameter_space"] = {name: axis.document() for name, axis in self.axes.items()}
        if self.group:
            data["design"] = {"zip": [self.group]}
        if self.runs:
            data["runs"] = [{"params_override": overrides} for overrides in self.runs]
        return data


@st.composite
def plans(draw: st.DrawFn) -> Drawn:
    order = draw(st.permutations([*NAMES]))[: draw(st.integers(1, 6))]
    group = order[:2] if len(order) > 2 and draw(st.booleans()) else []
    axes: dict[str, Axis] = {}
    for name in order:
        earlier = "".join(other for other in NAMES if other < name) + "pq"
        is_derived = name not in group and draw(st.integers(0, 4)) == 0
        size = 3 if name in group else draw(st.integers(1, 4))
        values = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size, unique=name not in group))
        when = draw(condition(earlier)) if draw(st.integers(0, 2)) == 0 else None
        axes[name] = Axis(None if is_derived else values, draw(arithmetic(earlier)) if is_derived else None, when)
    overrides = st.dictionaries(st.sampled_from("pq"), st.integers(0, 3), min_size=1)
    constraints = draw(st.lists(condition(NAMES + "pq"), max_size=3))
    return Drawn(axes, group, draw(st.lists(overrides, max_size=2)), constraints)


class Combination:
    """One combination: what each name means there."""

    def __init__(self, drawn: Drawn, overrides: dict[str, int], full: dict[str, int]) -> None:
        self._axes = drawn.axes
        self._other = {**BASE, **overrides}
        self._full = full

    def parameter(self, name: str) -> Any:
        """What the point sets for an axis; None if it leaves it out."""
        axis = self._axes[name]
        if axis.when is not None and not self.value(axis.when):
            return None
        return self._full[name] if axis.expr is None else self.value(axis.expr)

    def value(self, text: str) -> Any:
        """The value of an expression. Every name in it needs a value, even one that doesn't matter."""
        values = {name: self._named(name) for name in re.findall(r"\b[a-fpq]\b", text)}
        try:
            return eval(text, {"int": int, "max": max, **values})
        except ZeroDivisionError as error:
            raise NoValueError from error

    def _named(self, name: str) -> Any:
        value = self.parameter(name) if name in self._axes else None
        return self._other[name] if value is None else value


def rows(drawn: Drawn) -> list[list[dict[str, int]]]:
    """For each dimension of the axes, in order, the values that it gives at each of its digits."""
    found = []
    for name, axis in drawn.axes.items():
        if axis.values is not None and name not in drawn.group:
            found.append([{name: value} for value in axis.values])
        elif name in drawn.group[:1]:
            columns = [drawn.axes[each].values or [] for each in drawn.group]
            together = dict.fromkeys(zip(*columns, strict=True))
            found.append([dict(zip(drawn.group, row, strict=True)) for row in together])
    return found


def brute_force(drawn: Drawn) -> list[dict[str, Any]]:
    """All points in order. Raises NoValueError if an expression has no value at one of them."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for entry, overrides in enumerate(drawn.runs or [{}]):
        for parts in itertools.product(*rows(drawn)):
            full = {name: value for part in parts for name, value in part.items()}
            combination = Combination(drawn, overrides, full)
            verdicts = [outcome(combination.value, constraint) for constraint in drawn.constraints]
            if False in verdicts:
                continue
            params = {name: outcome(combination.parameter, name) for name in drawn.axes}
            if NoValueError in (*verdicts, *params.values()):
                raise NoValueError
            point = {**overrides, **{name: value for name, value in params.items() if value is not None}}
            found.setdefault((entry, canonical.text(point)), point)
    return [*found.values()]


def outcome(function: Any, argument: str) -> Any:
    try:
        return function(argument)
    except NoValueError:
        return NoValueError


@given(drawn=plans(), limits=LIMITS)
def test_points_are_those_of_brute_force(drawn: Drawn, limits: WorkLimits) -> None:
    """Count, order and every point by its number are the same; a plan without points, or with an expression that has no
    value at one, is refused.
    """
    refusal = "no_points"
    try:
        expected = brute_force(drawn)
    except NoValueError:
        expected, refusal = [], "expression_fails"
    if not expected:
        with pytest.raises(errors.PlanRejected) as rejected:
            settled.size(plan.parse(drawn.document(), limits=limits))
        assert {problem.code for problem in rejected.value.problems} == {refusal}
        return
    made = plan.parse(drawn.document(), limits=limits)
    assert settled.size(made) == space.SpaceSize(len(expected), len(expected))
    assert [point.params for point in space.points(made)] == expected
    for number, params in enumerate(expected):
        assert next(space.points(made, number)).params == params
