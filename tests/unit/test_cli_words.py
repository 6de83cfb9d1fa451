"""What the commands say: numbers, durations, headers, and how they end."""

import inspect
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import client, errors
from ems_worker.cli import exits, failures, follow, tables, views


def status(**changes: Any) -> dict[str, Any]:
    counts = {"pending": 2, "running": 1, "completed": 5, "failed": 1, "infeasible": 1, "lost": 0, "cancelled": 0}
    basic = {"state": "running", "counts": counts, "total": 10, "progress": 0.7}
    return {**basic, "throughput": 2.0, "eta_seconds": 1.5, "finished_at": None, "started_at": None, **changes}


def test_a_status_is_one_line() -> None:
    """What ended, what went wrong, how fast it goes, how long it takes; the last two only while it runs."""
    running = "running: 7 of 10 jobs ended (70%), 1 failed, 1 infeasible"
    assert follow.line(status()) == f"{running}, 2 per second, about 2 s left"
    assert follow.line(status(throughput=0.0, eta_seconds=None)) == running
    assert follow.line(status(finished_at="2026-01-01T00:00:00.000Z")) == running


def test_why_an_experiment_does_not_get_on_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    """Where its way is followed line by line, at once when it changes; in a list, a column where there is one."""
    reason = "the orchestrator can't be reached: 127.0.0.1:1: connection refused"
    with follow._Lines() as shown:
        for why in (None, None, reason, reason, None):
            shown.show(status(reason=why))
    plain = follow.line(status())
    assert capsys.readouterr().err.splitlines() == [plain, f"{plain} ({reason})", plain]
    follow.summary(status(experiment_id="reef", reason=reason, metrics={}, best=None))
    assert reason in capsys.readouterr().out
    basic = {"experiment_id": "reef", "group": None, "created_at": "2026-01-01T00:00:00.000Z", "experiment_name": "r"}
    for changes, told in (({}, True), ({"finished_at": "2026-01-01T00:00:00.000Z"}, False)):
        views.experiments([status(reason=reason, **basic, **changes)])
        assert ("connection refused" in capsys.readouterr().out) is told


def test_a_reason_stays_above_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Once, until there is another one."""
    monkeypatch.setenv("COLUMNS", "200")
    with follow._Bar() as shown:
        for why in (None, "[bold] words", "[bold] words", None, "[bold] words"):
            shown.show(status(experiment_id="reef", reason=why))
    assert capsys.readouterr().err.count("reef: [bold] words") == 2


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.6, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (7500, "2 h 05 min")]
)
def test_durations_are_said_as_people_do(seconds: float, words: str) -> None:
    """No more precise than anybody needs."""
    assert follow.duration(seconds) == words


@pytest.mark.parametrize(
    ("paths", "headers"),
    [
        (["a.b.food", "a.c.heat"], ["food", "heat"]),
        (["a.b.food", "a.c.food", "heat"], ["b.food", "c.food", "heat"]),
        (["food", "a.food"], ["food", "a.food"]),
        (["a.seafood", "b.food"], ["seafood", "food"]),
        ([], []),
    ],
)
def test_paths_are_told_by_their_last_words(paths: list[str], headers: list[str]) -> None:
    """As few as tell them apart."""
    assert tables.short(paths) == headers


def test_values_fit_a_table() -> None:
    """Long ones are cut, large ones told by their size, words are YAML's."""
    assert [tables.value(one) for one in (True, None, 1.5, "x")] == ["true", "null", "1.5", "x"]
    assert tables.value({"sha256": "ab", "bytes": 5000}) == "<5000 bytes>"
    assert len(tables.value("x" * 100)) == 40
    assert tables.mean({"mean": 1 / 3, "std": None}) == "0.333333"
    assert tables.mean({"mean": 10.0, "std": 2 / 3}) == "10 ± 0.667"
    assert tables.mean({"mean": None, "std": None}) == tables.mean(None) == "-"


def test_every_error_ends_a_command_with_a_documented_code() -> None:
    """No code is without its meaning."""
    assert set(exits.MEANING) == set(exits.Exit)
    for kind in (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.EmsError)):
        code = exits.of(kind([]) if kind is errors.PlanRejected else kind("words"))
        assert code not in (exits.Exit.OK, exits.Exit.INTERRUPTED)
    assert exits.of(errors.NotFound("")) is exits.Exit.FAILED
    assert exits.of(errors.NoAnswer("")) is exits.Exit.TIMED_OUT
    assert exits.of(errors.BrokerUnavailable("")) is exits.Exit.UNREACHABLE
    assert exits.of(errors.ManifestUnusable("")) is exits.Exit.MANIFEST
    assert exits.of(errors.FileUnreadable("")) is exits.of(errors.FileUnwritable("")) is exits.Exit.USAGE


@pytest.mark.parametrize(
    ("aggregate", "words"),
    [
        ({"n": 2, "mean": 4.0, "std": 1.0, "missing": 1}, "  m: 4 ± 1 over 2 runs, 1 missing"),
        (
            {"n": 0, "mean": None, "std": None, "missing": 1200},
            "  m: in none of 1,200 results; does the simulation report it?",
        ),
        ({"n": 0, "mean": None, "std": None, "missing": 0}, "  m: no results"),
    ],
)
def test_a_metric_that_no_result_has_is_told(
    capsys: pytest.CaptureFixture[str], aggregate: dict[str, float | None], words: str
) -> None:
    """A misspelt metric is in no result: the summary says so, instead of an empty mean."""
    metrics = {"m": aggregate}
    follow.summary(status(experiment_id="reef", reason=None, metrics=metrics, best=None))
    assert words in capsys.readouterr().out.splitlines()


class _Silent(client.EmsClient):
    """Of a worker that hangs: the status is in its stream, nobody tells the jobs."""

    async def watch(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
        ended = {"experiment_id": experiment_id, "finished_at": "2026-01-01T00:00:00.000Z", "state": "failed"}
        yield status(**ended, reason=None, metrics={}, best=None)

    async def jobs(
        self, experiment_id: str, *, state: str | None = None, attempts: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        if state is not None:
            raise errors.NoAnswer("the worker did not answer within 10 s")
        yield {}


class _Failing(client.EmsClient):
    """Of a worker whose jobs failed for so many reasons."""

    def __init__(self, reasons: int) -> None:
        super().__init__()
        self._reasons = reasons

    async def jobs(
        self, experiment_id: str, *, state: str | None = None, attempts: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        for number in range(self._reasons):
            error = {"kind": "simulation", "message": f"reason {number}"}
            yield {"simulation_id": f"{experiment_id}-{number}", "error": error}


@pytest.mark.parametrize(
    ("reasons", "last"),
    [
        (5, "  1 x failed, simulation: reason 4 (reef-4)"),
        (6, "  and 1 other reason: ems export reef"),
        (7, "  and 2 other reasons: ems export reef"),
    ],
)
async def test_reasons_that_are_not_told_are_counted(
    reasons: int, last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is no several."""
    await failures.tell(_Failing(reasons), status(experiment_id="reef", counts={"failed": reasons}))
    assert capsys.readouterr().out.splitlines()[-1] == last


async def test_reasons_that_cannot_be_had_are_not_left_out_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    """The outcome is told all the same, and the exit code is the experiment's."""
    assert await follow.to_the_end(_Silent(), "reef") is exits.Exit.FAILED
    told = capsys.readouterr()
    assert told.out == "reef failed: 7 of 10 jobs ended (70%), 1 failed, 1 infeasible\n"
    assert told.err.splitlines()[-1] == (
        "why jobs did not complete can't be told now: the worker did not answer within 10 s"
    )


@given(
    width=st.integers(20, 200),
    name=st.text("abc-_", min_size=1, max_size=64),
    total=st.integers(1, 10**6),
    failed=st.integers(0, 10**6),
    eta=st.none() | st.floats(0, 10**6),
)
def test_the_count_stays_on_a_terminal_of_any_width(
    width: int, name: str, total: int, failed: int, eta: float | None
) -> None:
    """Nothing is wider than the terminal; the bar goes before the times, these before any letter of the id."""
    known = status(experiment_id=name, total=total, counts={"failed": min(failed, total)}, eta_seconds=eta)
    fits = follow.layout(width, known)
    parts = [fits.name, "=" * fits.bar, fits.count, fits.words, "10:00:00" if fits.elapsed else ""]
    assert len(" ".join(filter(None, parts))) <= width
    assert fits.count == f"{min(failed, total):,}/{total:,}"
    assert fits.elapsed or not fits.bar
    assert fits.name == f"{name} running" or not fits.elapsed
    assert "left" not in fits.words or fits.elapsed


def test_what_is_left_out_on_a_narrow_terminal() -> None:
    """Bar, times, a part of the id, what went wrong: in this order."""
    known = status(experiment_id="reef-heat-1c375451b7", counts={"failed": 3, "pending": 7}, eta_seconds=75)
    lines = [follow.layout(width, known) for width in (80, 70, 60, 40, 30, 20)]
    assert [line.name for line in lines] == [
        *["reef-heat-1c375451b7 running"] * 3,
        "reef-heat-1c375... running",
        "reef-heat-1c37... running",
        "",
    ]
    assert [line.words for line in lines] == [*["3 failed, 75 s left"] * 2, "3 failed", "3 failed", "", ""]
    assert [(line.bar > 0, line.elapsed) for line in lines] == [(True, True), (False, True), *[(False, False)] * 4]
