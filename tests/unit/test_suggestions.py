"""Suggestions have a budget per plan: a plan with many typos takes little longer than one with few."""

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

# What the suggestions for one plan may cost together, in pairs of compared characters.
MAX_PAIRS = 10_000_000


@dataclass
class Searches:
    """The number of searches, the most candidates of a search, and the pairs of characters that all may compare."""

    count: int = 0
    max_candidates: int = 0
    pairs: int = 0


@pytest.fixture
def searches() -> Iterator[Searches]:
    """Counts the searches for the plans of a test."""
    counted = Searches()
    original = difflib.get_close_matches

    def count(word: str, known: Any, **options: Any) -> list[str]:
        counted.count += 1
        counted.max_candidates = max(counted.max_candidates, len(known))
        counted.pairs += len(word) * sum(map(len, known))
        return original(word, known, **options)

    with patch.object(difflib, "get_close_matches", count):
        yield counted


def _problems(base: dict[str, Any], space: dict[str, Any], **more: Any) -> tuple[errors.Problem, ...]:
    """The problems of a plan with this base configuration and parameter space."""
    data = json.loads(json.dumps({"experiment_name": "x", "base_config": base, "parameter_space": space, **more}))
    with pytest.raises(errors.PlanRejected) as rejected:
        plan.parse(data)
    return rejected.value.problems


MANY = {f"{word}{number}": number for number in range(1000) for word in ("fish", "food", "reef", "temp")}


def test_a_typo_among_a_thousand_keys_gets_a_suggestion(searches: Searches) -> None:
    """All thousand keys are searched, and the suggestion is the nearest of them."""
    base = {f"parameter_{number:04}": number for number in range(999)} | {"temperature": 1}
    [problem] = _problems(base, {"temprature": [1]})
    assert problem.suggestion == "temperature"
    assert searches.max_candidates == 1000


def test_more_than_a_thousand_keys_are_not_searched(searches: Searches) -> None:
    """With four thousand keys, forty misspelt paths are reported without a suggestion and without a search."""
    reported = _problems(MANY, {f"fihs{number}": [1] for number in range(40)})
    assert [problem.suggestion for problem in reported] == [None] * 40
    assert searches.count == 0


def test_a_plan_has_one_budget_for_all_its_suggestions(searches: Searches) -> None:
    """Paths, names in expressions, keys of axes and zips share it; once it is spent, there are no more suggestions."""
    base = {f"some_quite_long_name_of_a_parameter_{number:04}": number for number in range(900)}
    misspelt = {name.replace("long", "lnog"): [1] for name in [*base][:30]}
    constraints = [f"{name.replace('quite', 'quiet')} > 1" for name in [*base][:30]]
    reported = _problems(base, misspelt, constraints=constraints, design={"zip": [[*misspelt]]})
    assert reported[0].suggestion is not None
    assert reported[-1].suggestion is None
    assert MAX_PAIRS // 2 < searches.pairs <= MAX_PAIRS


def test_words_of_more_than_200_characters_are_neither_searched_for_nor_suggested() -> None:
    """Comparing long words is slow, and a typo in a short word never makes a long one."""
    budget = suggestions.SearchBudget()
    assert suggestions.nearest("x" * 201, ["x" * 200]) is None
    assert suggestions.nearest("x" * 200, ["x" * 201]) is None
    assert suggestions.nearest("x" * 200, ["X" * 200]) == "X" * 200
    assert paths.nearest({"x" * 300: 1}, ("x" * 301,), budget) is None


def test_a_budget_that_is_too_small_gives_no_result() -> None:
    """Where a comparison costs more than what is left, nothing is suggested and the likeness is zero."""
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
        ([0] * 1_000_000, "[" + "0, " * 18 + "0,..."),
        (10**100, "a number of many digits"),
        ([10**100], "[a number of many digits]"),
    ],
)
def test_a_message_quotes_the_beginning_of_a_value(value: object, shown: str) -> None:
    """At most 60 characters of a value are quoted, however large it is."""
    assert quotes.brief(value) == shown
