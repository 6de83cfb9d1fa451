"""Whether start commands get through, by what became of the last calls: pure rules."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import delivery
from ems_worker.core.lifecycle.delivery import PROBE_SECONDS, STUCK_RUNS, Delivery, Trouble
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome


def call(began: float, code: str, *names: str, words: str = "") -> Call:
    outcome_ = Outcome.LATE if code == "LATE" else outcome(code)
    return Call(began, 1.0, tuple(Answer(name, outcome_, code, words) for name in names or ("a",)))


def fed(*calls: Call) -> Delivery:
    one = Delivery()
    for each in calls:
        one = delivery.heard(one, each)
    return one


MANY = [f"r{number}" for number in range(STUCK_RUNS)]


@pytest.mark.parametrize("code", ["OK", "ALREADY_EXISTS", "INVALID_ARGUMENT", "INTERNAL"])
def test_whatever_is_an_answer_shows_that_commands_get_through(code: str) -> None:
    """Also one that refuses the run, or leaves it open."""
    one = fed(call(1.0, "UNAVAILABLE"), call(2.0, code))
    assert (one.trouble, one.stuck, delivery.reason(one, [])) == (None, False, None)


@pytest.mark.parametrize(("code", "trouble"), [("UNAVAILABLE", Trouble.AWAY), ("UNAUTHENTICATED", Trouble.REFUSING)])
def test_one_call_shows_that_it_is_away_or_refuses_all(code: str, trouble: Trouble) -> None:
    """No other would fare better, and none tries."""
    one = fed(call(1.0, code))
    assert (one.trouble, one.stuck) == (trouble, True)
    assert delivery.room(one, 9, 1000.0) == 0


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_what_a_few_runs_meet_stops_nothing(code: str) -> None:
    """However often they do; only many different ones stop it, and then one after the other finds out."""
    one = fed(*(call(float(began), code, name) for began in range(20) for name in MANY[1:]))
    assert not one.stuck
    assert delivery.room(one, 9, 0.0) == 9
    for many in (delivery.heard(one, call(21.0, code, "another")), fed(call(1.0, code, *MANY))):
        assert many.stuck
        assert delivery.room(many, 9, PROBE_SECONDS - 0.1) == 0
        assert delivery.room(many, 9, PROBE_SECONDS) == 1
        assert delivery.room(many, 0, PROBE_SECONDS) == 0


def test_a_call_that_hangs_says_nothing_about_those_that_began_later() -> None:
    """What was answered meanwhile says more."""
    good = fed(call(5.0, "OK"))
    assert delivery.heard(good, call(4.0, "DEADLINE_EXCEEDED", *MANY)) == good
    assert delivery.heard(good, call(6.0, "DEADLINE_EXCEEDED", *MANY)).stuck
    assert delivery.heard(good, call(6.0, "LATE", *MANY)) == good
    # An old answer doesn't take back what a newer call met.
    met = fed(call(6.0, "RESOURCE_EXHAUSTED", *MANY))
    assert delivery.heard(met, call(5.0, "OK")).stuck
    assert delivery.heard(met, call(6.0, "OK")) == Delivery(6.0)
    assert delivery.heard(Delivery(9.0), call(5.0, "OK")) == Delivery(9.0)


def test_the_worst_answer_of_a_batch_counts_with_its_runs() -> None:
    """A full queue that took some of them is one all the same."""
    answers = (*call(0.0, "OK", "a", "b").answers, *call(0.0, "RESOURCE_EXHAUSTED", "c", words="queue is full").answers)
    one = fed(Call(1.0, 1.0, answers))
    assert (one.trouble, one.words) == (Trouble.OVERLOADED, "RESOURCE_EXHAUSTED: queue is full")
    assert one.runs == {"c"}
    worse = Call(2.0, 1.0, (*answers, *call(0.0, "PERMISSION_DENIED", "d").answers))
    assert delivery.heard(one, worse).trouble is Trouble.REFUSING


def test_a_sign_of_life_ends_only_silence() -> None:
    """Events of runs whose starts have no answer: they arrive, if slowly."""
    silent = fed(call(1.0, "DEADLINE_EXCEEDED", *MANY))
    assert (delivery.alive(silent).stuck, delivery.alive(silent).trouble) == (False, Trouble.SILENT)
    busy = fed(call(1.0, "RESOURCE_EXHAUSTED", *MANY))
    assert delivery.alive(busy) == busy


@pytest.mark.parametrize(
    ("code", "words", "reason"),
    [
        (
            "UNAVAILABLE",
            "127.0.0.1:1: connection refused",
            "the orchestrator can't be reached: 127.0.0.1:1: connection refused",
        ),
        ("UNAVAILABLE", "", "the orchestrator can't be reached: UNAVAILABLE: "),
        ("PERMISSION_DENIED", "who?", "the orchestrator refuses all runs: PERMISSION_DENIED: who?"),
        ("RESOURCE_EXHAUSTED", "a\x1b[2J\nb", "the orchestrator is overloaded: RESOURCE_EXHAUSTED: a [2J b"),
    ],
)
def test_the_reason_has_the_orchestrators_words(code: str, words: str, reason: str) -> None:
    """On one line, without what a terminal would take for a command, and not more of them than anybody reads."""
    assert delivery.reason(fed(call(1.0, code, words=words)), []) == reason
    long = delivery.reason(fed(call(1.0, code, words="x" * 9999)), [])
    assert long is not None
    assert len(long) < delivery.LONGEST_WORDS + 50


def test_silence_is_told_by_how_many_starts_have_waited_how_long() -> None:
    """In steps, so that it isn't news every second."""
    silent = fed(call(1.0, "DEADLINE_EXCEEDED"))
    slow = "the orchestrator is slow to answer"
    assert delivery.reason(silent, [12.0, 34.9]) == f"{slow}: 2 starts without an answer, the oldest for 30 s"
    assert delivery.reason(silent, []) == f"{slow}: the last starts had no answer in time"
    assert delivery.waits([7.0]) == "1 start without an answer, the oldest for 5 s"
    assert delivery.waits([200.0] * 1234) == "1,234 starts without an answer, the oldest for 3 min"
    assert delivery.waits([4.9]) is delivery.waits([]) is None


CALLS = st.lists(
    st.tuples(st.integers(0, 50), st.sampled_from(["OK", "UNAVAILABLE", "RESOURCE_EXHAUSTED", "LATE", "INTERNAL"])),
    max_size=60,
)


@given(CALLS)
def test_memory_is_bounded_and_an_answer_to_the_latest_call_ends_all_trouble(story: list[tuple[int, str]]) -> None:
    """Whatever came before."""
    one = fed(*(call(float(began), code, f"r{began}") for began, code in story))
    assert len(one.runs) <= STUCK_RUNS
    assert delivery.heard(one, call(51.0, "OK")) == Delivery(51.0)
