"""The states of a run: what each event does in each state."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ems_worker.core.documents import sanitize
from ems_worker.core.lifecycle import run, transitions
from ems_worker.core.lifecycle.run import ErrorKind, Run, Signal, StopReason, Waiting
from ems_worker.core.lifecycle.transitions import Effect, RunEvent, RunState
from tests.support import onwards

EVENTS = st.sampled_from(list(RunEvent))


def a_run(state: RunState = RunState.PENDING) -> Run:
    started = 2 if state is RunState.RUNNING else None
    return Run(point=0, replicate=0, attempt=1, seed=7, state=state, started_ms=started)


def test_every_pair_of_state_and_event_is_decided() -> None:
    """The table has exactly one row for each pair."""
    assert set(transitions.TRANSITIONS) == {(state, event) for state in RunState for event in RunEvent}


@pytest.mark.parametrize("pair", transitions.TRANSITIONS, ids=lambda pair: f"{pair[0]}+{pair[1]}")
def test_the_rank_never_falls_and_only_lost_runs_leave_a_terminal_state(pair: tuple[RunState, RunEvent]) -> None:
    """An event that is applied moves the run to a higher rank; every other effect leaves it unchanged."""
    state, event = pair
    transition = transitions.TRANSITIONS[pair]
    effect, after = run.advance(a_run(state), Signal(event), now_ms=5)
    # These signals have no content to note; the tests of metrics have such.
    assert effect is (Effect.DUPLICATE if transition.effect is Effect.NOTE else transition.effect)
    if transition.to is None:
        assert effect is not Effect.APPLY
        assert after == a_run(state)
        return
    assert effect is Effect.APPLY
    assert after.state is transition.to
    assert onwards.RANK[after.state] > onwards.RANK[state]
    assert state not in transitions.TERMINAL or state is RunState.LOST


@pytest.mark.parametrize("state", RunState)
def test_a_repeated_event_changes_nothing(state: RunState) -> None:
    """Delivery is at least once: applying an event twice has the same effect as applying it once."""
    for event in RunEvent:
        _, once = run.advance(a_run(state), Signal(event), now_ms=5)
        effect, twice = run.advance(once, Signal(event), now_ms=9)
        assert twice == once
        assert effect is not Effect.APPLY


@given(st.lists(EVENTS, max_size=12))
def test_a_terminal_run_has_a_time_and_an_open_one_has_none(events: list[RunEvent]) -> None:
    """After any sequence of events, `finished_ms` is set exactly in terminal states."""
    current = a_run()
    for event in events:
        _, current = run.advance(current, Signal(event), now_ms=5)
        assert current.ended == (current.finished_ms is not None)


@given(st.permutations([RunEvent.CLAIM, RunEvent.ACCEPT, RunEvent.START, RunEvent.COMPLETE]))
def test_the_order_of_events_does_not_change_the_end(events: list[RunEvent]) -> None:
    """The run completes, whether its event arrives before the reply or after it."""
    current = a_run()
    for event in events:
        _, current = run.advance(current, Signal(event), now_ms=5)
    assert current.state is RunState.COMPLETED


def test_the_elapsed_time_starts_from_zero_when_the_run_starts() -> None:
    """The time that the run spent in the orchestrator's queue doesn't count against its limit."""
    queued = replace(a_run(RunState.SUBMITTED), elapsed_ms=9000)
    _, running = run.advance(queued, Signal(RunEvent.START, started_ms=3, model_version="m1"), now_ms=5)
    assert (running.elapsed_ms, running.started_ms, running.model_version) == (0, 3, "m1")


def test_a_completed_run_has_the_content_of_its_event() -> None:
    """This includes metrics, artifacts, times and the model version."""
    signal = Signal(
        RunEvent.COMPLETE, metrics={"x": 1.0}, artifacts={"a": "u"}, started_ms=1, finished_ms=2, model_version="m"
    )
    _, after = run.advance(a_run(RunState.RUNNING), signal, now_ms=5)
    assert after.metrics == {"x": 1.0}
    assert after.artifacts == {"a": "u"}
    assert (after.started_ms, after.finished_ms, after.model_version) == (1, 2, "m")
    assert after.error_kind is None


@pytest.mark.parametrize(
    ("reason", "state", "kind"),
    [
        (StopReason.TIMEOUT, RunState.FAILED, ErrorKind.TIMEOUT),
        *[(reason, RunState.CANCELLED, ErrorKind.STOPPED) for reason in StopReason if reason is not StopReason.TIMEOUT],
        (None, RunState.FAILED, ErrorKind.STOPPED),
    ],
)
def test_a_confirmed_stop_means_what_it_was_sent_for(
    reason: StopReason | None, state: RunState, kind: ErrorKind
) -> None:
    """At the time limit it is a timeout, for an unwanted run a cancellation, and without our STOP a failure."""
    stopping = replace(a_run(RunState.RUNNING), stop_reason=reason)
    _, after = run.advance(stopping, Signal(RunEvent.FAIL, ErrorKind.STOPPED, "stopped"), now_ms=5)
    assert after.state is state
    assert after.error_kind is kind


def test_a_run_that_fails_by_itself_before_its_stop_arrives_keeps_its_error() -> None:
    """It isn't a timeout."""
    stopping = replace(a_run(RunState.RUNNING), stop_reason=StopReason.TIMEOUT)
    _, after = run.advance(stopping, Signal(RunEvent.FAIL, ErrorKind.SIMULATION, "boom"), now_ms=5)
    assert after.error_kind is ErrorKind.SIMULATION


SCORED = Signal(RunEvent.MEASURE, metrics={"score": 2.0})
AWAITED = frozenset({"score"})


def completed(**metrics: float | None) -> Run:
    return run.advance(a_run(RunState.RUNNING), Signal(RunEvent.COMPLETE, metrics=metrics), 5, AWAITED)[1]


def test_a_completed_run_without_an_awaited_metric_waits_for_it() -> None:
    """Its job ends only when the metric arrives."""
    waiting = completed(population=3.0)
    assert waiting.waiting is Waiting.AWAITING
    assert waiting.ended
    assert not waiting.settled
    effect, after = run.advance(waiting, SCORED, 6, AWAITED)
    assert effect is Effect.NOTE
    assert after.metrics == {"population": 3.0, "score": 2.0}
    assert after.settled


def test_metrics_may_arrive_before_their_run_has_completed() -> None:
    """They are kept, and the completed run waits for nothing."""
    _, early = run.advance(a_run(RunState.RUNNING), SCORED, 4, AWAITED)
    assert early.state is RunState.RUNNING
    _, after = run.advance(early, Signal(RunEvent.COMPLETE, metrics={"population": 3.0}), 5, AWAITED)
    assert after.waiting is None
    assert after.metrics == {"population": 3.0, "score": 2.0}


def test_the_first_value_of_a_metric_stands() -> None:
    """A later event changes no known value, and replaces a null."""
    scored = run.advance(completed(), SCORED, 6, AWAITED)[1]
    other = Signal(RunEvent.MEASURE, metrics={"score": 9.0})
    assert run.advance(scored, other, 7, AWAITED) == (Effect.DUPLICATE, scored)
    assert run.advance(completed(score=None), SCORED, 6, AWAITED)[1].metrics == {"score": 2.0}


def test_metrics_that_did_not_arrive_are_missing_until_a_retry_or_their_late_arrival() -> None:
    """A retry waits for them again, without a new run."""
    effect, missing = run.advance(completed(), Signal(RunEvent.EXPIRE), 6, AWAITED)
    assert effect is Effect.NOTE
    assert missing.waiting is Waiting.MISSING
    assert missing.settled
    assert run.advance(missing, Signal(RunEvent.EXPIRE), 6, AWAITED)[0] is Effect.DUPLICATE
    assert run.advance(missing, Signal(RunEvent.AWAIT), 6, AWAITED)[1].waiting is Waiting.AWAITING
    assert run.advance(missing, SCORED, 6, AWAITED)[1].waiting is None


def test_the_elapsed_time_of_a_run_that_an_orchestrator_forgot_starts_from_zero_at_its_next_start() -> None:
    """A repeated start event doesn't reset it once more."""
    running = replace(a_run(RunState.RUNNING), elapsed_ms=9000, stop_reason=StopReason.TIMEOUT)
    forgotten = run.forgotten(running)
    assert (forgotten.state, forgotten.started_ms, forgotten.elapsed_ms, forgotten.stop_reason) == (
        RunState.RUNNING,
        None,
        0,
        None,
    )
    unwanted = replace(running, stop_reason=StopReason.SUPERSEDED)
    assert run.forgotten(unwanted).stop_reason is StopReason.SUPERSEDED
    effect, started = run.advance(
        replace(forgotten, elapsed_ms=70), Signal(RunEvent.START, model_version="m2"), now_ms=8
    )
    assert effect is Effect.NOTE
    assert (started.started_ms, started.elapsed_ms, started.model_version) == (8, 0, "m2")
    assert run.advance(started, Signal(RunEvent.START, started_ms=9), now_ms=10) == (Effect.DUPLICATE, started)


def test_a_run_that_its_orchestrator_starts_again_has_its_whole_time() -> None:
    """A start later than the known one resets time, progress and place; an earlier or equal one changes nothing."""
    first = replace(a_run(RunState.RUNNING), started_ms=2_000, elapsed_ms=70, step=5, total=9, host="n1", slot="1")
    again = Signal(RunEvent.START, started_ms=60_000, host="n2", slot="2")
    effect, second = run.advance(first, again, now_ms=61_000)
    assert (effect, second.state, second.attempt) == (Effect.NOTE, RunState.RUNNING, 1)
    assert (second.started_ms, second.elapsed_ms, second.step, second.total) == (60_000, 0, None, None)
    assert (second.host, second.slot) == ("n2", "2")
    for repeated in (again, Signal(RunEvent.START, started_ms=2_000), Signal(RunEvent.START)):
        assert run.advance(second, repeated, now_ms=62_000) == (Effect.DUPLICATE, second)


def test_a_run_knows_where_it_is() -> None:
    """Any of its events may say so; a place that is known stands."""
    started = Signal(RunEvent.START, host="n17", slot="3")
    _, running = run.advance(a_run(RunState.SUBMITTED), started, now_ms=5)
    assert (running.host, running.slot) == ("n17", "3")
    _, ended = run.advance(running, Signal(RunEvent.COMPLETE), now_ms=6)
    assert (ended.host, ended.slot) == ("n17", "3")
    _, failed = run.advance(a_run(RunState.SUBMITTED), Signal(RunEvent.FAIL, ErrorKind.SIMULATION, host="n2"), 6)
    assert failed.host == "n2"
    effect, located = run.advance(a_run(RunState.RUNNING), started, now_ms=7)
    assert (effect, located.host, located.slot, located.started_ms) == (Effect.NOTE, "n17", "3", 2)
    assert run.advance(located, Signal(RunEvent.START, host="n18"), now_ms=8) == (Effect.DUPLICATE, located)


@pytest.mark.parametrize("state", sorted(transitions.OPEN))
def test_the_last_progress_of_an_open_run_stands(state: RunState) -> None:
    """It may go back, and come with metrics or alone; the total needs to be named once."""
    effect, first = run.advance(a_run(state), Signal(RunEvent.MEASURE, step=10.0, total=50.0), now_ms=5)
    assert (effect, first.step, first.total, first.metrics) == (Effect.NOTE, 10.0, 50.0, None)
    assert run.advance(first, Signal(RunEvent.MEASURE, step=10.0), now_ms=6) == (Effect.DUPLICATE, first)
    effect, second = run.advance(first, Signal(RunEvent.MEASURE, step=8.0, metrics={"x": 1.0}), now_ms=6)
    assert (effect, second.step, second.total, second.metrics) == (Effect.NOTE, 8.0, 50.0, {"x": 1.0})
    same_metrics = Signal(RunEvent.MEASURE, step=9.0, metrics={"x": 1.0})
    effect, third = run.advance(second, same_metrics, now_ms=6)
    assert (effect, third.step) == (Effect.NOTE, 9.0)
    _, total = run.advance(third, Signal(RunEvent.MEASURE, total=60.0), now_ms=6)
    assert (total.step, total.total) == (9.0, 60.0)


@pytest.mark.parametrize("state", sorted(set(RunState) - transitions.OPEN))
def test_progress_of_a_run_that_is_not_open_is_no_news(state: RunState) -> None:
    """It may arrive after the end; how far the run had come stays on its row."""
    before = replace(a_run(state), step=3.0, total=4.0)
    effect, after = run.advance(before, Signal(RunEvent.MEASURE, step=9.0, total=9.0), now_ms=5)
    assert effect in (Effect.DUPLICATE, Effect.LATE)
    assert after == before


@pytest.mark.parametrize("event", [RunEvent.COMPLETE, RunEvent.FAIL, RunEvent.LOSE, RunEvent.CANCEL])
def test_a_run_that_has_ended_is_not_suspended(event: RunEvent) -> None:
    """A PAUSE is over with its end."""
    _, ended = run.advance(replace(a_run(RunState.RUNNING), suspended=True), Signal(event), now_ms=5)
    assert ended.ended
    assert not ended.suspended


def test_a_run_that_is_sent_again_is_nowhere_and_at_its_beginning() -> None:
    """The orchestrator that lost it may start it on another host, and knows of no pause."""
    before = replace(a_run(RunState.RUNNING), suspended=True, host="n1", slot="2", step=3.0, total=4.0)
    after = run.forgotten(before)
    assert (after.suspended, after.host, after.slot, after.step, after.total) == (False, None, None, None, None)


def test_a_job_is_called_off_by_a_person_a_settled_round_or_a_race() -> None:
    """A run that drains is one of those; an attempt that lost, a time limit or failing fast calls off no job."""
    reasons = {reason for reason in StopReason if replace(a_run(), stop_reason=reason).called_off}
    assert reasons == {StopReason.CANCELLED, StopReason.STRAGGLER, StopReason.RACED}
    assert replace(a_run(), drains=True).called_off
    assert not a_run().called_off


def test_a_run_that_may_end_by_itself_is_stopped_only_at_its_time_limit() -> None:
    """A run with a reason to stop is stopped, whatever the reason is."""
    assert not a_run().to_be_stopped
    assert all(replace(a_run(), stop_reason=reason).to_be_stopped for reason in StopReason)
    drains = replace(a_run(), drains=True, stop_reason=StopReason.CANCELLED)
    assert not drains.to_be_stopped
    assert replace(drains, stop_reason=StopReason.TIMEOUT).to_be_stopped


def many(name: str, count: int) -> dict[str, float | None]:
    return {f"{name}{number}": 1.0 for number in range(count)}


def test_a_run_has_a_limited_number_of_metrics_in_any_order_of_arrival() -> None:
    """An event beyond the limit changes nothing. Half of the limit is reserved for the run's end."""
    half = run.MAX_METRICS // 2
    _, early = run.advance(a_run(RunState.RUNNING), Signal(RunEvent.MEASURE, metrics=many("early", half)), 4)
    one_more = Signal(RunEvent.MEASURE, metrics={"one": 1.0})
    assert run.advance(early, one_more, 5) == (Effect.EXCESS, early)
    _, full = run.advance(early, Signal(RunEvent.COMPLETE, metrics=many("own", half)), 6)
    assert len(full.metrics or {}) == run.MAX_METRICS
    assert run.advance(full, one_more, 7) == (Effect.EXCESS, full)
    assert run.advance(full, Signal(RunEvent.MEASURE, metrics={"own0": 2.0}), 7) == (Effect.DUPLICATE, full)
    _, late = run.advance(completed(**many("own", half)), Signal(RunEvent.MEASURE, metrics=many("late", half)), 8)
    assert len(late.metrics or {}) == run.MAX_METRICS
    assert run.MAX_METRICS == 2 * sanitize.MAX_METRICS
