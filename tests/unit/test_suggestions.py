"""Suggestions for misspelt names: all searches of a plan share a budget, so that they take a limited time."""

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import pytest

from ems_worker import errors
from ems_worker.core.language import paths, quotes, suggestions
from ems_worker.core.points import plan


@dataclass
class Searches:
    """The number of searches, of names in the largest search, and of compared pairs of characters."""

    count: int = 0
    max_names: int = 0
    pairs: int = 0


@pytest.fixture
def searches() -> Iterator[Searches]:
    """Counts the searches of a test."""
    counted = Searches()
    real = difflib.get_close_matches

    def count(word: str, known: Any, **options: Any) -> list[str]:
        counted.count += 1
        counted.max_names = max(counted.max_names, len(known))
        counted.pairs += len(word) * sum(map(len, known))
        return real(word, known, **options)

    with patch.object(difflib, "get_close_matches", count):
        yield counted


def _problems(base: dict[str, Any], space: dict[str, Any], **more: Any) -> tuple[errors.Problem, ...]:
    data = json.loads(json.dumps({"experiment_name": "x", "base_config": base, "parameter_space": space, **more}))
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(data)
    return rejected.value.problems


MANY = {f"{word}{number}": number for number in range(1000) for word in ("fish", "food", "reef", "temp")}


def test_a_misspelt_path_among_a_thousand_gets_a_suggestion(searches: Searches) -> None:
    """A thousand paths are searched for the most similar."""
    base = {f"parameter_{number:04}": number for number in range(999)} | {"temperature": 1}
    [problem] = _problems(base, {"temprature": [1]})
    assert problem.suggestion == "temperature"
    assert searches.max_names == 1000


def test_more_than_a_thousand_paths_are_not_searched(searches: Searches) -> None:
    """The problems have no suggestions then."""
    problems = _problems(MANY, {f"fihs{number}": [1] for number in range(40)})
    assert [problem.suggestion for problem in problems] == [None] * 40
    assert searches.count == 0


def test_a_plan_has_one_budget_for_all_its_suggestions(searches: Searches) -> None:
    """Paths, names in expressions and zip groups spend it; later problems have no suggestions."""
    base = {f"some_quite_long_name_of_a_parameter_{number:04}": number for number in range(900)}
    wrong = {name.replace("long", "lnog"): [1] for name in [*base][:30]}
    constraints = [f"{name.replace('quite', 'quiet')} > 1" for name in [*base][:30]]
    problems = _problems(base, wrong, constraints=constraints, design={"zip": [[*wrong]]})
    assert problems[0].suggestion is not None
    assert problems[-1].suggestion is None
    assert searches.pairs <= suggestions.MAX_PAIRS
    assert searches.pairs > suggestions.MAX_PAIRS // 2


def test_long_names_are_not_compared() -> None:
    """A name of more than 200 characters gets no suggestion, and is never one."""
    budget = suggestions.SearchBudget()
    assert suggestions.nearest("x" * 201, ["x" * 200]) is None
    assert suggestions.nearest("x" * 200, ["x" * 201]) is None
    assert suggestions.nearest("x" * 200, ["X" * 200]) == "X" * 200
    assert paths.nearest({"x" * 300: 1}, ("x" * 301,), budget) is None


def test_a_spent_budget_gives_no_suggestions() -> None:
    """Similarity is 0 then as well."""
    budget = suggestions.SearchBudget(10)
    assert budget.nearest("food", ["fod"]) is None
    assert budget.similarity("food", "food") == 0.0
    assert suggestions.SearchBudget(100).similarity("food", "food") == 1.0


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([], "[]"),
        ({}, "{}"),
        ([1, "a", None, {"b": [True, 1.5]}], "[1, 'a', None, {'b': [True, 1.5]}]"),
        (["x" * 1000], "['" + "x" * 55 + "..."),
        ([0] * 1_000_000, "[" + "0, " * 18 + "0, ..."),
        (10**100, "a number of many digits"),
        ([10**100], "[a number of many digits]"),
    ],
)
def test_a_message_quotes_the_beginning_of_a_value(value: object, shown: str) -> None:
    """A quote has at most 60 characters."""
    quote = quotes.brief(value)
    assert quote == shown or (quote[:57], len(quote)) == (shown[:57], 60)
