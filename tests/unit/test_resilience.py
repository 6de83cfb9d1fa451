"""The pure rules that keep a worker well: pauses, the breaker, the window of calls, and the orchestrator's word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.core.lifecycle import aimd, breaker, reconcile, retry
from ems_worker.core.lifecycle.breaker import Breaker, BreakerState
from ems_worker.core.lifecycle.reconcile import Asked
from ems_worker.core.lifecycle.run import ErrorKind, Signal
from ems_worker.core.lifecycle.transitions import RunEvent, RunState

BROKEN, WRONG = ErrorKind.INFRASTRUCTURE, ErrorKind.SIMULATION
RUNNING = Signal(RunEvent.START)


@given(st.integers(1, 2000), st.text(max_size=10))
def test_pauses_double_up_to_a_limit_with_a_spread(failures: int, identity: str) -> None:
    """Within half and one and a half times the doubled first pause, and the same each time it is asked."""
    base = min(60.0, 0.5 * 2.0 ** min(failures - 1, 64))
    pause = retry.pause_seconds(failures, identity, 0.5, 60.0)
    assert 0.5 * base <= pause <= 1.5 * base
    assert pause == retry.pause_seconds(failures, identity, 0.5, 60.0)


def fed(ends: list[ErrorKind | None], one: Breaker | None = None, now: float = 0.0) -> Breaker:
    one = one or Breaker()
    for kind in ends:
        one = heard(one, "some run", kind, now)
    return one


def heard(one: Breaker, name: str, kind: ErrorKind | None, now: float = 0.0) -> Breaker:
    return breaker.heard(one, name, RunState.COMPLETED if kind is None else RunState.FAILED, kind, now)


NOW = 500.0


def probing() -> Breaker:
    return breaker.turned(fed([BROKEN] * 10), NOW)


def probed() -> Breaker:
    return breaker.claimed(probing(), "probe", NOW)


def test_the_breaker_opens_when_most_of_the_last_runs_broke() -> None:
    """Not before there were enough of them, and not for failures of the simulation."""
    assert fed([BROKEN] * 9).state is BreakerState.CLOSED
    assert fed([BROKEN] * 10).state is BreakerState.OPEN
    assert fed([WRONG] * 50).state is BreakerState.CLOSED
    assert fed([None, BROKEN] * 10).state is BreakerState.CLOSED
    assert fed([ErrorKind.LOST] * 10).state is BreakerState.OPEN


def test_an_open_breaker_starts_nothing_then_probes_with_one_run() -> None:
    """After its pause, whatever else is open from before."""
    opened = fed([BROKEN] * 10)
    assert breaker.room(opened, 50, opened.until) == 0
    assert breaker.turned(opened, opened.until - 0.1) == opened
    probes = breaker.turned(opened, opened.until)
    assert probes.state is BreakerState.PROBING
    assert breaker.room(probes, 50, opened.until) == 1
    assert breaker.room(probes, 0, opened.until) == 0
    assert breaker.room(probed(), 50, NOW) == 0
    assert breaker.room(Breaker(), 50, 0.0) == 50


def test_a_probe_that_goes_on_is_joined_by_others_one_every_few_minutes() -> None:
    """A run may go on for days; the end of any of them decides."""
    one = probed()
    later = NOW + breaker.LONGEST_PAUSE_SECONDS
    assert breaker.room(one, 50, later - 0.1) == 0
    assert breaker.room(one, 50, later) == 1
    two = breaker.claimed(one, "second", later)
    assert breaker.room(two, 50, later) == 0
    assert breaker.room(two, 50, later + breaker.LONGEST_PAUSE_SECONDS) == 1
    for name in ("probe", "second"):
        assert heard(two, name, None) == Breaker()
        assert heard(two, name, BROKEN).state is BreakerState.OPEN


def test_only_a_breaker_that_probes_takes_note_of_what_is_claimed() -> None:
    """All else is no probe."""
    opened = fed([BROKEN] * 10)
    assert breaker.claimed(Breaker(), "run", NOW) == Breaker()
    assert breaker.claimed(opened, "run", NOW) == opened


def test_a_good_probe_closes_and_a_broken_one_opens_for_longer() -> None:
    """The pause doubles with every opening until a run ends well."""
    opened = fed([BROKEN] * 10)
    assert heard(opened, "run", None, 1.0) == opened
    for good in (None, WRONG):
        assert heard(probed(), "probe", good) == Breaker()
    again = heard(probed(), "probe", BROKEN, 100.0)
    assert again.state is BreakerState.OPEN
    assert again.openings == 2
    assert again.until > 100.0 + breaker.FIRST_PAUSE_SECONDS
    assert not again.probes


@pytest.mark.parametrize("kind", [None, WRONG, BROKEN])
def test_the_end_of_a_run_from_before_says_nothing_to_a_breaker_that_probes(kind: ErrorKind | None) -> None:
    """Before its probe is claimed and after."""
    for one in (probing(), probed()):
        assert heard(one, "from before", kind) == one


def test_a_cancelled_run_says_nothing() -> None:
    """Where it was the only probe, another one probes."""
    for one in (Breaker(), fed([BROKEN] * 9), fed([BROKEN] * 10), probing(), probed()):
        assert breaker.heard(one, "run", RunState.CANCELLED, None, 0.0) == one
    after = breaker.heard(probed(), "probe", RunState.CANCELLED, None, NOW)
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
    """Whatever is open from before: there is a pause, or room, or a probe that is open."""
    one, now, claims = Breaker(), 0.0, 0
    still_open: list[str] = [f"before {number}" for number in range(30)]
    for kind, number, error in story:
        if kind == "wait":
            now += 100.0
        one = breaker.turned(one, now)
        if kind == "claim" and breaker.room(one, 5, now) > 0:
            claims += 1
            still_open.append(f"run {claims}")
            one = breaker.claimed(one, still_open[-1], now)
        elif kind == "end" and still_open:
            one = heard(one, still_open.pop(number % len(still_open)), error, now)
        assert one.probes <= set(still_open)
        if one.state is BreakerState.OPEN:
            assert breaker.room(one, 5, now) == 0
            assert breaker.room(breaker.turned(one, one.until), 5, one.until) == 1
        elif one.state is BreakerState.PROBING:
            assert breaker.room(one, 5, now) == (0 if one.probes and now < one.until else 1)
            assert breaker.room(one, 5, now + breaker.LONGEST_PAUSE_SECONDS) == 1
        else:
            assert breaker.room(one, 5, now) == 5


def test_overload_halves_the_window_of_calls_and_good_answers_grow_it() -> None:
    """Down to one call, up to the most that was set."""
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


def test_answers_that_get_slow_shrink_the_window() -> None:
    """Most of the last ones, and many times the best of their kind; another kind has a best of its own."""
    window = aimd.answered(aimd.full(64), "StartSimulation", 0.01)
    assert slow(window, 0.2).calls == 64
    assert slow(window, 1.0, aimd.RECENT // 2).calls == 64
    assert slow(window, 1.0, aimd.RECENT // 2 + 1).calls == 32
    assert aimd.answered(window, "StartSimulations", 1.0).calls == 64


def test_calls_that_were_open_together_shrink_the_window_once() -> None:
    """They all met the same overload."""
    window = aimd.answered(aimd.full(64), "c", 0.01)
    for _ in range(50):
        window = aimd.answered(window, "c", 1.0, fresh=False)
    assert window.calls == 64


def test_a_window_that_makes_answers_faster_shrinks_further_until_they_are() -> None:
    """An orchestrator that works one call off after the other takes as many times as long as calls are open."""
    window = aimd.answered(aimd.full(64), "StartSimulation", 0.01)
    sizes = [window.calls]
    for _ in range(200):
        window = aimd.answered(window, "StartSimulation", 0.05 * window.size)
        sizes.append(window.calls)
    assert min(sizes) < 10


@pytest.mark.parametrize("unanswered", [False, True])
def test_an_orchestrator_that_is_slow_whatever_the_window_does_not_shrink_it_to_nothing(unanswered: bool) -> None:
    """Fewer calls at once don't make it faster: their number isn't the cause."""
    window = aimd.answered(aimd.full(64), "c", 0.01)
    for _ in range(3000):
        window = aimd.unanswered(window, "c", 10.0) if unanswered else aimd.answered(window, "c", 5.0)
        assert window.calls >= 32
    assert window.calls == (32 if unanswered else 64)


def test_a_few_calls_that_hang_do_not_shrink_the_window() -> None:
    """Two of a hundred, say."""
    window = aimd.full(64)
    for number in range(1000):
        window = (aimd.unanswered if number % 50 == 0 else aimd.answered)(window, "c", 0.01)
    assert window.calls == 64


def test_a_call_is_waited_for_as_long_as_its_kind_may_take() -> None:
    """Many times the best; a quarter of the deadline where that is shorter, or nothing is known."""
    assert aimd.patience_seconds(aimd.full(4), "c", 150.0) == aimd.UNKNOWN_PATIENCE_SECONDS
    assert aimd.patience_seconds(aimd.full(4), "c", 0.3) == 0.3
    known = aimd.answered(aimd.full(4), "c", 0.1)
    assert aimd.patience_seconds(known, "c", 2.5) == pytest.approx(0.8)
    assert aimd.patience_seconds(aimd.answered(known, "c", 0.001), "c", 2.5) == aimd.LEAST_PATIENCE_SECONDS
    assert aimd.patience_seconds(known, "c", 0.1) == 0.1


@given(st.lists(st.sampled_from(["good", "slow", "overload", "none"]), max_size=200), st.integers(1, 256))
def test_the_window_of_calls_stays_between_one_and_the_most(story: list[str], most: int) -> None:
    """Whatever the answers are."""
    window = aimd.full(most)
    for one in story:
        if one == "overload":
            window = aimd.overloaded(window)
        elif one == "none":
            window = aimd.unanswered(window, "c", 10.0)
        else:
            window = aimd.answered(window, "c", 0.01 if one == "good" else 5.0)
        assert 1 <= window.calls <= most


def test_what_the_orchestrator_knows_is_applied_like_an_event() -> None:
    """Also for runs that were missing a moment ago."""
    judged = reconcile.judge([Asked("a", 1, RUNNING)], {"a": 0.0}, 100.0)
    assert judged.signals == (("a", RUNNING),)
    assert judged.missing == {}


def test_one_answer_that_a_run_is_not_known_proves_nothing() -> None:
    """It is remembered, and asked again."""
    first = reconcile.judge([Asked("a", 1, None), Asked("b", 0, RUNNING)], {}, 100.0)
    assert [key for key, _ in first.signals] == ["b"]
    assert first.again == ()
    assert first.missing == {"a": 100.0}
    soon = reconcile.judge([Asked("a", 1, None)], first.missing, 100.0 + reconcile.CONFIRM_SECONDS - 1)
    assert soon.missing == {"a": 100.0}
    assert soon.signals == ()
    assert soon.again == ()


def test_a_run_that_is_not_known_twice_amid_known_ones_is_lost() -> None:
    """An orchestrator that knows an older run has not been wiped."""
    asked = [Asked("old", 1, RUNNING), Asked("gone", 5, None)]
    judged = reconcile.judge(asked, {"gone": 0.0}, reconcile.CONFIRM_SECONDS)
    (_, (key, signal)) = judged.signals
    assert key == "gone"
    assert signal.event is RunEvent.LOSE
    assert signal.error_kind is ErrorKind.LOST


@pytest.mark.parametrize("known", [[], [Asked("new", 9, RUNNING)], [Asked("together with b", 2, RUNNING)]])
def test_a_wiped_orchestrator_gets_its_runs_again(known: list[Asked[str]]) -> None:
    """It knows nothing, or only what it was given since: the others go out again under their ids."""
    asked = [Asked("a", 1, None), Asked("b", 2, None), *known]
    judged = reconcile.judge(asked, {"a": 0.0, "b": 0.0}, reconcile.CONFIRM_SECONDS)
    assert judged.again == ("a", "b")
    assert all(signal.event is not RunEvent.LOSE for _, signal in judged.signals)


ANSWERS = st.lists(st.tuples(st.integers(0, 20), st.booleans(), st.none() | st.floats(0, 60)), max_size=20)


@given(ANSWERS)
def test_every_run_that_was_asked_for_has_exactly_one_consequence(rows: list[tuple[int, bool, float | None]]) -> None:
    """A signal, another sending, or being remembered as missing."""
    asked = [Asked(key, submitted, RUNNING if known else None) for key, (submitted, known, _) in enumerate(rows)]
    missing = {key: since for key, (_, _, since) in enumerate(rows) if since is not None}
    judged = reconcile.judge(asked, missing, 60.0)
    heard = [key for key, _ in judged.signals] + list(judged.again) + list(judged.missing)
    assert sorted(heard) == list(range(len(rows)))
    for key in judged.again:
        assert all(one.submitted_ms >= rows[key][0] for one in asked if one.answer is not None)


def test_an_opened_breaker_forgets_what_opened_it() -> None:
    """After the pause the probes decide, not the past."""
    assert fed([BROKEN] * 10).recent == ()
