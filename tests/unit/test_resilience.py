"""The pure rules of resilience: retry pauses, the breaker, the window of calls, and reconciliation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import aimd, breaker, reconcile, retry
from ems_worker.core.lifecycle.breaker import Breaker, BreakerState
from ems_worker.core.lifecycle.reconcile import RunStatus
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState

BROKEN, WRONG = ErrorKind.INFRASTRUCTURE, ErrorKind.SIMULATION
RUNNING = Signal(RunEvent.START)


@given(st.integers(1, 2000), st.text(max_size=10))
def test_pauses_double_up_to_a_limit_with_a_spread(failures: int, identity: str) -> None:
    """A pause is between half and one and a half times the doubled base, and equal arguments give equal pauses."""
    base = min(60.0, 0.5 * 2.0 ** min(failures - 1, 64))
    pause = retry.pause_seconds(failures, identity, 0.5, 60.0)
    assert 0.5 * base <= pause <= 1.5 * base
    assert pause == retry.pause_seconds(failures, identity, 0.5, 60.0)


def after_ends(ends: list[ErrorKind | None]) -> Breaker:
    """A closed breaker after runs ended with these kinds of error."""
    state = Breaker()
    for kind in ends:
        state = run_ended(state, "some run", kind)
    return state


def run_ended(before: Breaker, name: str, kind: ErrorKind | None, now: float = 0.0) -> Breaker:
    return breaker.run_ended(before, name, RunState.COMPLETED if kind is None else RunState.FAILED, kind, now=now)


NOW = 500.0


def probing() -> Breaker:
    return breaker.at(after_ends([BROKEN] * 10), NOW)


def with_probe() -> Breaker:
    return breaker.run_claimed(probing(), "probe", NOW)


def test_the_breaker_opens_when_most_of_the_last_runs_broke() -> None:
    """It stays closed until there were enough ends, and for failures that the simulation caused."""
    assert after_ends([BROKEN] * 9).state is BreakerState.CLOSED
    assert after_ends([BROKEN] * 10).state is BreakerState.OPEN
    assert after_ends([WRONG] * 50).state is BreakerState.CLOSED
    assert after_ends([None, BROKEN] * 10).state is BreakerState.CLOSED
    assert after_ends([ErrorKind.LOST] * 10).state is BreakerState.OPEN


def test_an_open_breaker_starts_no_runs_until_its_pause_is_over_and_then_one() -> None:
    """Runs that are still open from before the opening don't count."""
    opened = after_ends([BROKEN] * 10)
    assert breaker.room(opened, 50, opened.until) == 0
    assert breaker.at(opened, opened.until - 0.1) == opened
    probes = breaker.at(opened, opened.until)
    assert probes.state is BreakerState.PROBING
    assert breaker.room(probes, 50, opened.until) == 1
    assert breaker.room(probes, 0, opened.until) == 0
    assert breaker.room(with_probe(), 50, NOW) == 0
    assert breaker.room(Breaker(), 50, 0.0) == 50


def test_a_probe_that_takes_long_is_joined_by_another_every_few_minutes() -> None:
    """A run may take days, and the end of any probe decides."""
    one_probe = with_probe()
    later = NOW + breaker.MAX_PAUSE_SECONDS
    assert breaker.room(one_probe, 50, later - 0.1) == 0
    assert breaker.room(one_probe, 50, later) == 1
    two_probes = breaker.run_claimed(one_probe, "second", later)
    assert breaker.room(two_probes, 50, later) == 0
    assert breaker.room(two_probes, 50, later + breaker.MAX_PAUSE_SECONDS) == 1
    for name in ("probe", "second"):
        assert run_ended(two_probes, name, None) == Breaker()
        assert run_ended(two_probes, name, BROKEN).state is BreakerState.OPEN


def test_a_claimed_run_is_a_probe_only_while_the_breaker_probes() -> None:
    """A closed breaker and an open one ignore claims."""
    opened = after_ends([BROKEN] * 10)
    assert breaker.run_claimed(Breaker(), "run", NOW) == Breaker()
    assert breaker.run_claimed(opened, "run", NOW) == opened


def test_a_good_probe_closes_the_breaker_and_a_broken_one_opens_it_for_longer() -> None:
    """The pause doubles with every opening until a probe ends without an infrastructure failure."""
    opened = after_ends([BROKEN] * 10)
    assert run_ended(opened, "run", None, 1.0) == opened
    for good in (None, WRONG):
        assert run_ended(with_probe(), "probe", good) == Breaker()
    again = run_ended(with_probe(), "probe", BROKEN, 100.0)
    assert again.state is BreakerState.OPEN
    assert again.openings == 2
    assert again.until > 100.0 + breaker.FIRST_PAUSE_SECONDS
    assert not again.probes


@pytest.mark.parametrize("kind", [None, WRONG, BROKEN])
def test_a_probing_breaker_ignores_the_end_of_a_run_that_is_no_probe(kind: ErrorKind | None) -> None:
    """This holds before a probe is claimed and after."""
    for state in (probing(), with_probe()):
        assert run_ended(state, "from before", kind) == state


def test_the_breaker_ignores_cancelled_runs() -> None:
    """If the only probe is cancelled, another run may probe."""
    for state in (Breaker(), after_ends([BROKEN] * 9), after_ends([BROKEN] * 10), probing(), with_probe()):
        assert breaker.run_ended(state, "run", RunState.CANCELLED, None, now=0.0) == state
    after = breaker.run_ended(with_probe(), "probe", RunState.CANCELLED, None, now=NOW)
    assert after.state is BreakerState.PROBING
    assert breaker.room(after, 50, NOW) == 1


STORY = st.lists(
    st.tuples(st.sampled_from(["claim", "end", "wait"]), st.integers(0, 3), st.sampled_from([None, WRONG, BROKEN])),
    max_size=150,
)


@given(STORY)
def test_a_breaker_never_stops_for_good_and_probes_with_one_run_at_a_time(
    story: list[tuple[str, int, ErrorKind | None]],
) -> None:
    """At any time there is a pause that ends, room for a run, or an open probe."""
    state, now, claims = Breaker(), 0.0, 0
    still_open: list[str] = [f"before {number}" for number in range(30)]
    for kind, number, error in story:
        if kind == "wait":
            now += 100.0
        state = breaker.at(state, now)
        if kind == "claim" and breaker.room(state, 5, now) > 0:
            claims += 1
            still_open.append(f"run {claims}")
            state = breaker.run_claimed(state, still_open[-1], now)
        elif kind == "end" and still_open:
            state = run_ended(state, still_open.pop(number % len(still_open)), error, now)
        assert state.probes <= set(still_open)
        if state.state is BreakerState.OPEN:
            assert breaker.room(state, 5, now) == 0
            assert breaker.room(breaker.at(state, state.until), 5, state.until) == 1
        elif state.state is BreakerState.PROBING:
            assert breaker.room(state, 5, now) == (0 if state.probes and now < state.until else 1)
            assert breaker.room(state, 5, now + breaker.MAX_PAUSE_SECONDS) == 1
        else:
            assert breaker.room(state, 5, now) == 5


def test_an_opened_breaker_forgets_what_opened_it() -> None:
    """After the pause only the probes decide."""
    assert after_ends([BROKEN] * 10).recent == ()


def test_overload_halves_the_window_of_calls_and_good_answers_grow_it() -> None:
    """It shrinks to no less than one call, and grows to no more than it started with."""
    window = aimd.full(64)
    assert aimd.overloaded(window).calls == 32
    for _ in range(20):
        window = aimd.overloaded(window)
    assert window.calls == 1
    for _ in range(5000):
        window = aimd.answered(window, "StartSimulation", 0.01)
    assert window.calls == 64


def slow(window: aimd.CallWindow, seconds: float, times: int = aimd.RECENT) -> aimd.CallWindow:
    for _ in range(times):
        window = aimd.answered(window, "StartSimulation", seconds)
    return window


def test_the_window_shrinks_when_most_recent_answers_are_slow() -> None:
    """An answer is slow if it takes many times the best time of its kind; each kind of call has its own."""
    window = aimd.answered(aimd.full(64), "StartSimulation", 0.01)
    assert slow(window, 0.2).calls == 64
    assert slow(window, 1.0, aimd.RECENT // 2).calls == 64
    assert slow(window, 1.0, aimd.RECENT // 2 + 1).calls == 32
    assert aimd.answered(window, "StartSimulations", 1.0).calls == 64


def test_calls_that_were_open_together_shrink_the_window_once() -> None:
    """A slow answer counts only if its call began after the window last shrank."""
    window = aimd.answered(aimd.full(64), "c", 0.01)
    for _ in range(50):
        window = aimd.answered(window, "c", 1.0, fresh=False)
    assert window.calls == 64


def test_a_window_that_makes_answers_faster_shrinks_further_until_they_are() -> None:
    """The time of a call is proportional to the number of open calls if the orchestrator handles them one at a time."""
    window = aimd.answered(aimd.full(64), "StartSimulation", 0.01)
    sizes = [window.calls]
    for _ in range(200):
        window = aimd.answered(window, "StartSimulation", 0.05 * window.size)
        sizes.append(window.calls)
    assert min(sizes) < 10


@pytest.mark.parametrize("unanswered", [False, True])
def test_the_window_shrinks_once_if_that_does_not_make_answers_faster(unanswered: bool) -> None:
    """An orchestrator that is slow at any number of open calls isn't overloaded by them."""
    window = aimd.answered(aimd.full(64), "c", 0.01)
    for _ in range(3000):
        window = aimd.unanswered(window, "c", 10.0) if unanswered else aimd.answered(window, "c", 5.0)
        assert window.calls >= 32
    assert window.calls == (32 if unanswered else 64)


def test_a_few_calls_that_hang_do_not_shrink_the_window() -> None:
    """Two calls of a hundred hang here, and the window stays at its largest."""
    window = aimd.full(64)
    for number in range(1000):
        window = (aimd.unanswered if number % 50 == 0 else aimd.answered)(window, "c", 0.01)
    assert window.calls == 64


def test_patience_depends_on_the_best_time_of_a_kind_of_call() -> None:
    """It is many times the best time, has a default for an unknown kind, and never exceeds the given maximum."""
    assert aimd.patience_seconds(aimd.full(4), "c", 150.0) == aimd.UNKNOWN_PATIENCE_SECONDS
    assert aimd.patience_seconds(aimd.full(4), "c", 0.3) == 0.3
    known = aimd.answered(aimd.full(4), "c", 0.1)
    assert aimd.patience_seconds(known, "c", 2.5) == pytest.approx(0.8)
    assert aimd.patience_seconds(aimd.answered(known, "c", 0.001), "c", 2.5) == aimd.MIN_PATIENCE_SECONDS
    assert aimd.patience_seconds(known, "c", 0.1) == 0.1


@given(st.lists(st.sampled_from(["good", "slow", "overload", "none"]), max_size=200), st.integers(1, 256))
def test_the_window_of_calls_stays_between_one_and_its_maximum(story: list[str], max_calls: int) -> None:
    """This holds after any sequence of answers."""
    window = aimd.full(max_calls)
    for answer in story:
        if answer == "overload":
            window = aimd.overloaded(window)
        elif answer == "none":
            window = aimd.unanswered(window, "c", 10.0)
        else:
            window = aimd.answered(window, "c", 0.01 if answer == "good" else 5.0)
        assert 1 <= window.calls <= max_calls


def test_the_status_of_a_known_run_is_applied_like_an_event() -> None:
    """A run that was unknown before is no longer missing."""
    conclusion = reconcile.conclude([RunStatus("a", 1, RUNNING)], {"a": 0.0}, 100.0)
    assert conclusion.signals == (("a", RUNNING),)
    assert conclusion.missing == {}


def test_a_run_that_is_unknown_once_is_remembered_as_missing() -> None:
    """Nothing is done about it until a later query confirms the answer."""
    first = reconcile.conclude([RunStatus("a", 1, None), RunStatus("b", 0, RUNNING)], {}, 100.0)
    assert [key for key, _ in first.signals] == ["b"]
    assert first.resend == ()
    assert first.missing == {"a": 100.0}
    soon = reconcile.conclude([RunStatus("a", 1, None)], first.missing, 100.0 + reconcile.CONFIRM_SECONDS - 1)
    assert soon.missing == {"a": 100.0}
    assert soon.signals == ()
    assert soon.resend == ()


def test_a_run_that_is_unknown_twice_is_lost_if_an_older_one_is_known() -> None:
    """An orchestrator that knows an older run has not been wiped."""
    statuses = [RunStatus("old", 1, RUNNING), RunStatus("gone", 5, None)]
    conclusion = reconcile.conclude(statuses, {"gone": 0.0}, reconcile.CONFIRM_SECONDS)
    (_, (key, signal)) = conclusion.signals
    assert key == "gone"
    assert signal.event is RunEvent.LOSE
    assert signal.error_kind is ErrorKind.LOST


@pytest.mark.parametrize("known", [[], [RunStatus("new", 9, RUNNING)], [RunStatus("together with b", 2, RUNNING)]])
def test_runs_are_sent_again_to_a_wiped_orchestrator(known: list[RunStatus[str]]) -> None:
    """An orchestrator that knows no run, or only runs that are no older than the unknown ones, was wiped."""
    statuses = [RunStatus("a", 1, None), RunStatus("b", 2, None), *known]
    conclusion = reconcile.conclude(statuses, {"a": 0.0, "b": 0.0}, reconcile.CONFIRM_SECONDS)
    assert conclusion.resend == ("a", "b")
    assert all(signal.event is not RunEvent.LOSE for _, signal in conclusion.signals)


ANSWERS = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.none() | st.floats(0, 60)), max_size=20)


@given(ANSWERS)
def test_every_status_has_exactly_one_consequence(rows: list[tuple[int, bool, float | None]]) -> None:
    """A run gets a signal, is sent again, or is remembered as missing."""
    statuses = [RunStatus(key, submitted, RUNNING if known else None) for key, (submitted, known, _) in enumerate(rows)]
    missing = {key: since for key, (_, _, since) in enumerate(rows) if since is not None}
    conclusion = reconcile.conclude(statuses, missing, 60.0)
    concluded = [key for key, _ in conclusion.signals] + list(conclusion.resend) + list(conclusion.missing)
    assert sorted(concluded) == list(range(len(rows)))
    for key in conclusion.resend:
        assert all(status.submitted_ms >= rows[key][0] for status in statuses if status.signal is not None)
