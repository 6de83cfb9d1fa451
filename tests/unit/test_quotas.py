"""How many plans may be sent in a minute, and how much of the worker one publisher may hold."""

import pytest

from ems_worker.core.access import quotas, rate
from ems_worker.core.access.quotas import Held, Quotas
from ems_worker.core.access.rate import PlanRate, Rates

HOUR_MS = 3_600_000


def taken(limit: PlanRate, publisher: str | None, *times_ms: int) -> list[bool]:
    """Whether plans of these times may be decided."""
    return [limit.refusal(publisher, at) is None for at in times_ms]


@pytest.mark.parametrize(
    ("subject", "publisher"), [("ems.experiment.submit", None), ("ems.experiment.submit.evolution", "evolution")]
)
def test_the_subjects_last_token_names_the_publisher(subject: str, publisher: str | None) -> None:
    """The broker's permissions say who may use it."""
    assert rate.publisher(subject) == publisher


def test_a_publisher_gets_so_many_plans_a_minute() -> None:
    """By the time of publishing; one refused isn't counted; publishers don't share, those without a name do."""
    limit = PlanRate(Rates(2))
    assert taken(limit, "a", 0, 1, 2, 59_999) == [True, True, False, False]
    assert taken(limit, "b", 59_999) == [True]
    assert taken(limit, "a", 60_000, 60_000) == [True, False]
    assert taken(limit, None, 60_000, 60_000, 60_000) == [True, True, False]
    assert all(taken(PlanRate(Rates()), "a", *range(1000)))


def test_names_that_are_made_up_share_a_limit_for_all() -> None:
    """And the refusal says which limit it is."""
    limit = PlanRate(Rates(2, 5))
    assert [limit.refusal(f"name-{n}", n) is None for n in range(8)] == [True] * 5 + [False] * 3
    problem = limit.refusal("another", 9)
    assert problem is not None
    assert problem.code == "429"
    assert "EMS_PLANS_PER_MINUTE_TOTAL" in problem.message
    assert taken(limit, "another", 60_000) == [True]


def test_the_refusal_names_the_publisher_and_the_setting() -> None:
    """Those without a name of their own are named as such."""
    limit = PlanRate(Rates(1))
    words = []
    for publisher in ("a", None):
        assert limit.refusal(publisher, 0) is None
        problem = limit.refusal(publisher, 0)
        assert problem is not None
        words.append(problem.message)
    assert words[0].startswith("publisher a sent more than 1 plans within a minute (EMS_PLANS_PER_MINUTE)")
    assert words[1].startswith("publishers without a name")


def test_a_server_whose_clock_is_set_back_keeps_no_publisher_waiting() -> None:
    """What was sent in a future that is none any more isn't counted."""
    limit = PlanRate(Rates(2))
    assert taken(limit, "a", HOUR_MS, HOUR_MS + 1, HOUR_MS + 2) == [True, True, False]
    assert taken(limit, "a", 0, 1, 2) == [True, True, False]
    assert taken(limit, "a", HOUR_MS) == [True]


def test_an_old_message_that_comes_again_makes_no_room() -> None:
    """Its time says nothing about the clock of the server."""
    limit = PlanRate(Rates(2))
    assert taken(limit, "a", HOUR_MS, HOUR_MS) == [True, True]
    assert limit.refusal("a", 0, again=True) is not None
    assert taken(limit, "a", HOUR_MS + 1) == [False]


def test_a_message_that_comes_again_counts_once() -> None:
    """It waits for its object, or the worker died with it: its publisher sent one plan."""
    limit = PlanRate(Rates(2))
    for _ in range(5):
        assert limit.refusal("a", 0, again=True, identity="first") is None
    assert limit.refusal("a", 1, identity="second") is None
    assert limit.refusal("a", 2, identity="third") is not None


def test_memory_does_not_grow_with_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no limit for all, the plans that are longest ago are forgotten."""
    monkeypatch.setattr(rate, "_MOST_PLANS", 3)
    limit = PlanRate(Rates(1))
    assert all(taken(limit, f"name-{n}", 0) == [True] for n in range(50))
    assert len(limit._sent) == len(limit._of) == 3
    assert taken(limit, "name-49", 0) == [False]


def test_a_publisher_holds_so_much_at_once() -> None:
    """Each cap by itself, with the numbers and the remedy; no cap refuses nothing."""
    assert quotas.refusals(Quotas(), "a", Held(10**6, 10**9), 10**6) == []
    caps = Quotas(experiments=2, jobs=10)
    assert caps.counted
    assert not Quotas(priority=3).counted
    assert quotas.refusals(caps, "a", Held(1, 4), 6) == []
    [experiments] = quotas.refusals(caps, "a", Held(2, 4), 6)
    assert experiments.code == "too_many_open_experiments"
    assert "publisher a may have 2 experiments open" in experiments.message
    [jobs] = quotas.refusals(caps, None, Held(1, 4), 7)
    assert jobs.code == "too_many_open_jobs"
    assert "publishers without a name of their own may have 10 jobs" in jobs.message
    assert len(quotas.refusals(caps, "a", Held(2, 10), 1)) == 2


@pytest.mark.parametrize(("most", "priority", "refused"), [(None, 100, False), (3, 3, False), (3, 4, True)])
def test_a_priority_has_a_cap(most: int | None, priority: int, refused: bool) -> None:
    """With the place in the plan, and the highest one as what to write there."""
    problem = quotas.priority_refusal(Quotas(priority=most), priority)
    assert (problem is not None) == refused
    if problem is not None:
        assert (problem.code, problem.path, problem.suggestion) == ("priority_too_high", "limits.priority", "3")
