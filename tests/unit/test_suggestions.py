"""What was most likely meant is searched for within a budget, so that a plan of slips costs no more than a few."""

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
    """How often likenesses were searched for, among how many words at most, and how many characters were compared."""

    count: int = 0
    most: int = 0
    pairs: int = 0


@pytest.fixture
def searches() -> Iterator[Searches]:
    """Counts what the plans of a test cost."""
    counted = Searches()
    real = difflib.get_close_matches

    def count(word: str, known: Any, **options: Any) -> list[str]:
        counted.count += 1
        counted.most = max(counted.most, len(known))
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


def test_a_slip_among_a_thousand_keys_brings_a_suggestion(searches: Searches) -> None:
    """A thousand are searched, and it was the one that is nearest."""
    base = {f"parameter_{number:04}": number for number in range(999)} | {"temperature": 1}
    [problem] = _problems(base, {"temprature": [1]})
    assert problem.suggestion == "temperature"
    assert searches.most == 1000


def test_among_more_than_a_thousand_keys_nothing_is_searched_for(searches: Searches) -> None:
    """Four thousand keys and forty misspelt paths are told as quickly as one."""
    found = _problems(MANY, {f"fihs{number}": [1] for number in range(40)})
    assert [one.suggestion for one in found] == [None] * 40
    assert searches.count == 0


def test_a_plan_has_one_budget_for_all_its_suggestions(searches: Searches) -> None:
    """Paths, names in expressions, keys of axes and zips take from it; what comes later goes without."""
    base = {f"some_quite_long_name_of_a_parameter_{number:04}": number for number in range(900)}
    wrong = {name.replace("long", "lnog"): [1] for name in [*base][:30]}
    constraints = [f"{name.replace('quite', 'quiet')} > 1" for name in [*base][:30]]
    found = _problems(base, wrong, constraints=constraints, design={"zip": [[*wrong]]})
    assert found[0].suggestion is not None
    assert found[-1].suggestion is None
    assert searches.pairs <= suggestions.MAX_PAIRS
    assert searches.pairs > suggestions.MAX_PAIRS // 2


def test_no_suggestion_is_searched_for_what_is_too_long() -> None:
    """Likeness takes time by length, and a long word was no slip; nor is a long word ever suggested."""
    budget = suggestions.SearchBudget()
    assert suggestions.nearest("x" * 201, ["x" * 200]) is None
    assert suggestions.nearest("x" * 200, ["x" * 201]) is None
    assert suggestions.nearest("x" * 200, ["X" * 200]) == "X" * 200
    assert paths.nearest({"x" * 300: 1}, ("x" * 301,), budget) is None


def test_a_spent_budget_finds_nothing_and_likens_nothing() -> None:
    """However little is asked of it."""
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
    """And no more of a gigantic one is put into words than is shown."""
    found = quotes.brief(value)
    assert found == shown or (found[:57], len(found)) == (shown[:57], 60)
