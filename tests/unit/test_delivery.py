"""Whether start commands get through, judged by the results of recent calls."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import delivery
from ems_worker.core.lifecycle.delivery import PROBE_SECONDS, STUCK_RUNS, Delivery, Obstacle
from ems_worker.core.lifecycle.outcome import Answer, Call, Outcome, outcome


def call(began: float, code: str, *names: str, message: str = "") -> Call:
    meaning = Outcome.LATE if code == "LATE" else outcome(code)
    return Call(began, 1.0, tuple(Answer(name, meaning, code, message) for name in names or ("a",)))


def after(*calls: Call) -> Delivery:
    state = Delivery()
    for ended in calls:
        state = delivery.call_ended(state, ended)
    return state


MANY = [f"r{number}" for number in range(STUCK_RUNS)]


@pytest.mark.parametrize("code", ["OK", "ALREADY_EXISTS", "INVALID_ARGUMENT", "INTERNAL"])
def test_any_answer_shows_that_commands_get_through(code: str) -> None:
    """An answer that refuses a run, or an error inside the orchestrator, shows it, too."""
    state = after(call(1.0, "UNAVAILABLE"), call(2.0, code))
    assert (state.obstacle, state.stuck, delivery.reason(state, [])) == (None, False, None)


@pytest.mark.parametrize(("code", "obstacle"), [("UNAVAILABLE", Obstacle.AWAY), ("UNAUTHENTICATED", Obstacle.REFUSING)])
def test_one_call_shows_that_the_orchestrator_is_away_or_refuses_all_runs(code: str, obstacle: Obstacle) -> None:
    """No further run is claimed then, not even as a probe."""
    state = after(call(1.0, code))
    assert (state.obstacle, state.stuck) == (obstacle, True)
    assert delivery.room(state, 9, 1000.0) == 0


@pytest.mark.parametrize("code", ["RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_an_obstacle_that_few_runs_meet_stops_nothing(code: str) -> None:
    """If many different runs meet it, commands are stuck, and single runs probe."""
    state = after(*(call(float(began), code, name) for began in range(20) for name in MANY[1:]))
    assert not state.stuck
    assert delivery.room(state, 9, 0.0) == 9
    for many in (delivery.call_ended(state, call(21.0, code, "another")), after(call(1.0, code, *MANY))):
        assert many.stuck
        assert delivery.room(many, 9, PROBE_SECONDS - 0.1) == 0
        assert delivery.room(many, 9, PROBE_SECONDS) == 1
        assert delivery.room(many, 0, PROBE_SECONDS) == 0


def test_a_call_that_hangs_is_no_evidence_about_calls_that_began_later() -> None:
    """An answer outweighs the silence of older calls, and no answer clears an obstacle that a newer call met."""
    answered = after(call(5.0, "OK"))
    assert delivery.call_ended(answered, call(4.0, "DEADLINE_EXCEEDED", *MANY)) == answered
    assert delivery.call_ended(answered, call(6.0, "DEADLINE_EXCEEDED", *MANY)).stuck
    assert delivery.call_ended(answered, call(6.0, "LATE", *MANY)) == answered
    overloaded = after(call(6.0, "RESOURCE_EXHAUSTED", *MANY))
    assert delivery.call_ended(overloaded, call(5.0, "OK")).stuck
    assert delivery.call_ended(overloaded, call(6.0, "OK")) == Delivery(6.0)
    assert delivery.call_ended(Delivery(9.0), call(5.0, "OK")) == Delivery(9.0)


def test_the_worst_answer_of_a_batch_decides() -> None:
    """A queue that accepted some runs of a batch is full all the same. Only runs with that answer met the obstacle."""
    full = call(0.0, "RESOURCE_EXHAUSTED", "c", message="queue is full")
    answers = (*call(0.0, "OK", "a", "b").answers, *full.answers)
    state = after(Call(1.0, 1.0, answers))
    assert (state.obstacle, state.message) == (Obstacle.OVERLOADED, "RESOURCE_EXHAUSTED: queue is full")
    assert state.runs == {"c"}
    worse = Call(2.0, 1.0, (*answers, *call(0.0, "PERMISSION_DENIED", "d").answers))
    assert delivery.call_ended(state, worse).obstacle is Obstacle.REFUSING


def test_an_event_of_an_unanswered_run_lets_commands_go_only_if_the_obstacle_is_silence() -> None:
    """The event shows that its command arrived; the orchestrator is still reported as slow."""
    silent = after(call(1.0, "DEADLINE_EXCEEDED", *MANY))
    after_event = delivery.event_received(silent)
    assert (after_event.stuck, after_event.obstacle) == (False, Obstacle.SILENT)
    busy = after(call(1.0, "RESOURCE_EXHAUSTED", *MANY))
    assert delivery.event_received(busy) == busy


@pytest.mark.parametrize(
    ("code", "message", "reason"),
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
def test_the_reason_includes_the_orchestrators_message(code: str, message: str, reason: str) -> None:
    """The message is on one line, without terminal control characters, and shortened."""
    assert delivery.reason(after(call(1.0, code, message=message)), []) == reason
    long = delivery.reason(after(call(1.0, code, message="x" * 9999)), [])
    assert long is not None
    assert len(long) < delivery.MAX_MESSAGE + 50


def test_the_reason_for_silence_has_the_number_of_unanswered_starts_and_the_longest_wait() -> None:
    """The wait is rounded down to steps, so that the text doesn't change every second."""
    silent = after(call(1.0, "DEADLINE_EXCEEDED"))
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
def test_memory_is_bounded_and_an_answer_to_the_latest_call_clears_every_obstacle(story: list[tuple[int, str]]) -> None:
    """This holds after any sequence of calls."""
    state = after(*(call(float(began), code, f"r{began}") for began, code in story))
    assert len(state.runs) <= STUCK_RUNS
    assert delivery.call_ended(state, call(51.0, "OK")) == Delivery(51.0)
