"""How many plans may be sent in a minute, and how much open work one publisher may have."""

import pytest

from ems_worker.core.access import quotas, rate
from ems_worker.core.access.quotas import OpenWork, Quotas
from ems_worker.core.access.rate import PlanRate, Rates

HOUR_MS = 3_600_000


def accepted(limit: PlanRate, publisher: str | None, *times_ms: int) -> list[bool]:
    """For each of these times, whether a plan stored then may be decided."""
    return [limit.refusal(publisher, at) is None for at in times_ms]


@pytest.mark.parametrize(
    ("subject", "publisher"), [("ems.experiment.submit", None), ("ems.experiment.submit.evolution", "evolution")]
)
def test_the_last_token_of_the_subject_names_the_publisher(subject: str, publisher: str | None) -> None:
    """A subject without that token names no publisher."""
    assert rate.publisher(subject) == publisher


def test_a_publisher_may_send_a_limited_number_of_plans_a_minute() -> None:
    """Refused plans don't count. Each publisher has its own limit, and all publishers without a name share one."""
    limit = PlanRate(Rates(2))
    assert accepted(limit, "a", 0, 1, 2, 59_999) == [True, True, False, False]
    assert accepted(limit, "b", 59_999) == [True]
    assert accepted(limit, "a", 60_000, 60_000) == [True, False]
    assert accepted(limit, None, 60_000, 60_000, 60_000) == [True, True, False]
    assert all(accepted(PlanRate(Rates()), "a", *range(1000)))


def test_all_publishers_together_have_a_limit_too() -> None:
    """A client that makes up names is held by it, and the refusal names the setting."""
    limit = PlanRate(Rates(2, 5))
    assert [limit.refusal(f"name-{n}", n) is None for n in range(8)] == [True] * 5 + [False] * 3
    problem = limit.refusal("another", 9)
    assert problem is not None
    assert problem.code == "429"
    assert "EMS_PLANS_PER_MINUTE_TOTAL" in problem.message
    assert accepted(limit, "another", 60_000) == [True]


def test_the_refusal_names_the_publisher_and_the_setting() -> None:
    """It says so if the publisher has no name."""
    limit = PlanRate(Rates(1))
    messages = []
    for publisher in ("a", None):
        assert limit.refusal(publisher, 0) is None
        problem = limit.refusal(publisher, 0)
        assert problem is not None
        messages.append(problem.message)
    assert messages[0].startswith("publisher a sent more than 1 plans within a minute (EMS_PLANS_PER_MINUTE)")
    assert messages[1].startswith("publishers without a name")


def test_publishers_need_not_wait_after_the_servers_clock_is_set_back() -> None:
    """Plans that were stored at a time that is now in the future no longer count."""
    limit = PlanRate(Rates(2))
    assert accepted(limit, "a", HOUR_MS, HOUR_MS + 1, HOUR_MS + 2) == [True, True, False]
    assert accepted(limit, "a", 0, 1, 2) == [True, True, False]
    assert accepted(limit, "a", HOUR_MS) == [True]


def test_the_redelivery_of_an_old_message_does_not_reset_the_count() -> None:
    """Its time isn't the present time of the server."""
    limit = PlanRate(Rates(2))
    assert accepted(limit, "a", HOUR_MS, HOUR_MS) == [True, True]
    assert limit.refusal("a", 0, again=True) is not None
    assert accepted(limit, "a", HOUR_MS + 1) == [False]


def test_a_redelivered_message_counts_once() -> None:
    """Its publisher sent one plan, however often it is delivered."""
    limit = PlanRate(Rates(2))
    for _ in range(5):
        assert limit.refusal("a", 0, again=True, identity="first") is None
    assert limit.refusal("a", 1, identity="second") is None
    assert limit.refusal("a", 2, identity="third") is not None


def test_memory_does_not_grow_with_the_number_of_publishers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a limit for all publishers, the oldest plans are forgotten."""
    monkeypatch.setattr(rate, "_MAX_PLANS", 3)
    limit = PlanRate(Rates(1))
    assert all(accepted(limit, f"name-{n}", 0) == [True] for n in range(50))
    assert len(limit) == 3
    assert accepted(limit, "name-49", 0) == [False]


def test_a_publisher_may_have_a_limited_amount_of_open_work() -> None:
    """Experiments and jobs have a cap each, and a refusal has the numbers; without a cap nothing is refused."""
    assert quotas.refusals(Quotas(), "a", OpenWork(10**6, 10**9), 10**6) == []
    caps = Quotas(experiments=2, jobs=10)
    assert caps.counted
    assert not Quotas(priority=3).counted
    assert quotas.refusals(caps, "a", OpenWork(1, 4), 6) == []
    [experiments] = quotas.refusals(caps, "a", OpenWork(2, 4), 6)
    assert experiments.code == "too_many_open_experiments"
    assert "publisher a may have 2 experiments open" in experiments.message
    [jobs] = quotas.refusals(caps, None, OpenWork(1, 4), 7)
    assert jobs.code == "too_many_open_jobs"
    assert "publishers without a name of their own may have 10 jobs" in jobs.message
    assert len(quotas.refusals(caps, "a", OpenWork(2, 10), 1)) == 2


@pytest.mark.parametrize(("cap", "priority", "refused"), [(None, 100, False), (3, 3, False), (3, 4, True)])
def test_a_plan_may_not_have_a_priority_above_the_cap(cap: int | None, priority: int, refused: bool) -> None:
    """The refusal has the path in the plan, and suggests the highest priority allowed."""
    problem = quotas.priority_refusal(Quotas(priority=cap), priority)
    assert (problem is not None) == refused
    if problem is not None:
        assert (problem.code, problem.path, problem.suggestion) == ("priority_too_high", "limits.priority", "3")
