"""What the commands print: statuses, numbers, durations, headers, reasons; and the codes they exit with."""

import inspect
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ems_worker import client, errors
from ems_worker.cli import exits, failures, follow, statuses, tables, views

FINISHED_AT = "2026-01-01T00:00:00.000Z"


def status(**changes: Any) -> dict[str, Any]:
    counts = {"pending": 2, "running": 1, "completed": 5, "failed": 1, "infeasible": 1, "lost": 0, "cancelled": 0}
    basic = {"state": "running", "counts": counts, "total": 10, "progress": 0.7}
    return {**basic, "throughput": 2.0, "eta_seconds": 1.5, "finished_at": None, "started_at": None, **changes}


def test_a_status_is_one_line() -> None:
    """The line has the ended and the unsuccessful jobs, and while the experiment runs its speed and the time left."""
    running = "running: 7 of 10 jobs ended (70%), 1 failed, 1 infeasible"
    assert statuses.line(status()) == f"{running}, 2 per second, about 2 s left"
    assert statuses.line(status(throughput=0.0, eta_seconds=None)) == running
    assert statuses.line(status(throughput=0.0, eta_seconds=0.9)) == running
    assert statuses.line(status(throughput=0.0, eta_seconds=1)) == f"{running}, about 1 s left"
    assert statuses.line(status(finished_at=FINISHED_AT)) == running


def test_a_pause_without_a_reason_of_its_own_names_its_owners() -> None:
    """An owner that this version doesn't know is left out, and so is the pause of a status without the key."""
    paused = status(state="paused", reason=None, pauses=["hold", "person", "somebody"])
    assert statuses.reason(paused) == "paused by a person; its plan holds it back until `resume`"
    assert statuses.reason({**paused, "reason": "the disk is full"}) == "the disk is full"
    assert statuses.reason(status(reason=None)) is None


def test_excluded_jobs_are_counted() -> None:
    """Without any there is nothing to say."""
    counts = [statuses.excluded(status(excluded=number)) for number in (0, 1, 1200)]
    assert counts == ["", "1 job left out of metrics and ranking", "1,200 jobs left out of metrics and ranking"]
    assert statuses.excluded(status()) == ""


def test_lines_show_a_new_reason_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is printed when the reason appears or disappears, and not while it stays the same."""
    reason = "the orchestrator can't be reached: 127.0.0.1:1: connection refused"
    with follow.LineFollower() as shown:
        for current in (None, None, reason, reason, None):
            shown.show(status(reason=current))
    plain = statuses.line(status())
    assert capsys.readouterr().err.splitlines() == [plain, f"{plain} ({reason})", plain]


@pytest.mark.parametrize(
    ("seconds", "progress", "printed"), [(1.0, 0.75, False), (1.0, 0.8, True), (9.9, 0.7, False), (10.0, 0.7, True)]
)
def test_lines_show_each_tenth_of_the_jobs_and_a_heartbeat(
    seconds: float, progress: float, printed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a change of the state a line is printed for each tenth of the jobs and every ten seconds."""
    times = iter((100.0, 100.0 + seconds))
    with follow.LineFollower(clock=lambda: next(times)) as shown:
        shown.show(status(reason=None, progress=0.7))
        capsys.readouterr()
        shown.show(status(reason=None, progress=progress))
    assert bool(capsys.readouterr().err) is printed


def test_the_summary_has_the_reason(capsys: pytest.CaptureFixture[str]) -> None:
    """The reason follows the counts in the summary's first line."""
    statuses.show_summary(status(experiment_id="reef", reason="no worker", metrics={}, best=None))
    assert capsys.readouterr().out == f"reef {statuses.line(status())} (no worker)\n"


@pytest.mark.parametrize(("changes", "shown"), [({}, True), ({"finished_at": FINISHED_AT}, False)])
def test_a_list_has_the_reasons_of_open_experiments(
    changes: dict[str, str], shown: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A list has a column of reasons if an open experiment has one; an ended experiment's reason is not in it."""
    basic = {"experiment_id": "reef", "group": None, "created_at": FINISHED_AT, "experiment_name": "r"}
    views.experiments([status(reason="connection refused", **basic, **changes)])
    printed = capsys.readouterr().out
    assert ("reason" in printed) is shown
    assert ("connection refused" in printed) is shown


def test_a_reason_stays_above_the_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A reason is printed above the bar once each time that it appears, without interpreting markup in it."""
    monkeypatch.setenv("COLUMNS", "200")
    with follow.BarFollower() as shown:
        for reason in (None, "[bold] text", "[bold] text", None, "[bold] text"):
            shown.show(status(experiment_id="reef", reason=reason))
    assert capsys.readouterr().err.count("reef: [bold] text") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.6, "1 s"), (89, "89 s"), (90, "2 min"), (3600, "60 min"), (5400, "1 h 30 min"), (7500, "2 h 05 min")],
)
def test_durations_are_rounded(seconds: float, text: str) -> None:
    """A duration is in seconds below 90 s, in minutes below 90 min, and in hours and minutes above."""
    assert statuses.duration(seconds) == text


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
def test_paths_are_shortened_to_unique_suffixes(paths: list[str], headers: list[str]) -> None:
    """A path is shortened to the fewest last segments that no other path ends with."""
    assert tables.short(paths) == headers


def test_values_fit_a_table() -> None:
    """Booleans and null are written as in YAML, a large value as its size, and a long text is cut at 40 characters."""
    assert [tables.value(value) for value in (True, None, 1.5, "x")] == ["true", "null", "1.5", "x"]
    assert tables.value({"sha256": "ab", "bytes": 5000}) == "<5000 bytes>"
    assert tables.value("x" * 40) == "x" * 40
    assert tables.value("x" * 41) == "x" * 37 + "..."


def test_a_mean_has_its_standard_deviation() -> None:
    """A mean has six significant digits, its standard deviation three; without a mean there is a dash."""
    assert tables.mean({"mean": 1 / 3, "std": None}) == "0.333333"
    assert tables.mean({"mean": 10.0, "std": 2 / 3}) == "10 ± 0.667"
    assert tables.mean({"mean": None, "std": None}) == tables.mean(None) == "-"


def test_every_error_has_a_documented_exit_code() -> None:
    """Every exit code has a meaning, and no error exits with the code of success or of an interrupt."""
    assert set(exits.MEANING) == set(exits.Exit)
    for kind in (kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.EmsError)):
        code = exits.of(kind([]) if kind is errors.PlanRejected else kind("message"))
        assert code not in (exits.Exit.OK, exits.Exit.INTERRUPTED)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (exits.Misused, exits.Exit.USAGE),
        (errors.SettingsError, exits.Exit.USAGE),
        (errors.FileUnreadable, exits.Exit.USAGE),
        (errors.FileUnwritable, exits.Exit.USAGE),
        (errors.Unreadable, exits.Exit.INVALID_PLAN),
        (errors.BrokerUnavailable, exits.Exit.UNREACHABLE),
        (errors.BrokerMisconfigured, exits.Exit.UNREACHABLE),
        (errors.WorkerUnavailable, exits.Exit.UNREACHABLE),
        (errors.OrchestratorUnavailable, exits.Exit.UNREACHABLE),
        (errors.NoAnswer, exits.Exit.TIMED_OUT),
        (errors.ManifestUnusable, exits.Exit.MANIFEST),
        (errors.NotFound, exits.Exit.FAILED),
    ],
)
def test_an_error_has_its_exit_code(error: type[errors.EmsError], code: exits.Exit) -> None:
    """The kind of an error decides the exit code."""
    assert exits.of(error("message")) is code


@pytest.mark.parametrize(
    ("aggregate", "line"),
    [
        ({"n": 2, "mean": 4.0, "std": 1.0, "missing": 1}, "  m: 4 ± 1 over 2 runs, 1 missing"),
        (
            {"n": 0, "mean": None, "std": None, "missing": 1200},
            "  m: in none of 1,200 results; does the simulation report it?",
        ),
        ({"n": 0, "mean": None, "std": None, "missing": 0}, "  m: no results"),
    ],
)
def test_the_summary_points_out_a_metric_that_no_result_has(
    capsys: pytest.CaptureFixture[str], aggregate: dict[str, float | None], line: str
) -> None:
    """The summary says if a metric is in no result, as it is if its name is misspelt."""
    statuses.show_summary(status(experiment_id="reef", reason=None, metrics={"m": aggregate}, best=None))
    assert line in capsys.readouterr().out.splitlines()


class _SilentWorker(client.EmsClient):
    """A client of a worker that hangs: the stream has the status, and queries are not answered."""

    async def watch(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
        ended = {"experiment_id": experiment_id, "finished_at": FINISHED_AT, "state": "failed"}
        yield status(**ended, reason=None, metrics={}, best=None)

    async def jobs(
        self, experiment_id: str, *, state: str | None = None, where: str | None = None, attempts: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        if state is not None:
            raise errors.NoAnswer("the worker did not answer within 10 s")
        yield {}


class _FailingJobs(client.EmsClient):
    """A client of a worker whose jobs failed with these messages. `jobs_read` is how many were read."""

    def __init__(self, *messages: str) -> None:
        super().__init__()
        self._messages = messages
        self.jobs_read = 0

    async def jobs(
        self, experiment_id: str, *, state: str | None = None, where: str | None = None, attempts: bool = False
    ) -> AsyncGenerator[dict[str, Any], None]:
        for number, message in enumerate(self._messages):
            self.jobs_read += 1
            yield {"simulation_id": f"{experiment_id}-{number}", "error": {"kind": "simulation", "message": message}}


@pytest.mark.parametrize(
    ("reasons", "last_line"),
    [
        (5, "  1 x failed, simulation: reason 4 (reef-4)"),
        (6, "  and 1 other reason: ems export reef"),
        (7, "  and 2 other reasons: ems export reef"),
    ],
)
async def test_reasons_that_are_not_shown_are_counted(
    reasons: int, last_line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """At most five reasons are shown, and the number of the others follows."""
    jobs = _FailingJobs(*(f"reason {number}" for number in range(reasons)))
    await failures.show(jobs, status(experiment_id="reef", counts={"failed": reasons}))
    assert capsys.readouterr().out.splitlines()[-1] == last_line


async def test_equal_reasons_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """A reason is the last line of the message, cut at 160 characters, and the most frequent reason comes first."""
    jobs = _FailingJobs("Traceback\n  rare\n\n", "x" * 161, "x" * 161, "")
    await failures.show(jobs, status(experiment_id="reef", counts={"failed": 4}))
    assert capsys.readouterr().out.splitlines() == [
        f"  2 x failed, simulation: {'x' * 157}... (reef-1)",
        "  1 x failed, simulation: rare (reef-0)",
        "  1 x failed, simulation: no reason given (reef-3)",
    ]


async def test_at_most_500_jobs_of_a_state_are_read(capsys: pytest.CaptureFixture[str]) -> None:
    """The reasons of a large experiment are found in the first jobs."""
    jobs = _FailingJobs(*["same"] * 600)
    await failures.show(jobs, status(experiment_id="reef", counts={"failed": 600}))
    assert jobs.jobs_read == 500
    assert capsys.readouterr().out == "  500 x failed, simulation: same (reef-0)\n"


async def test_reasons_that_are_not_available_are_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """If the worker doesn't answer, the outcome is shown without reasons, and the exit code is the experiment's."""
    assert await follow.to_the_end(_SilentWorker(), "reef") is exits.Exit.FAILED
    printed = capsys.readouterr()
    assert printed.out == "reef failed: 7 of 10 jobs ended (70%), 1 failed, 1 infeasible\n"
    assert printed.err.splitlines()[-1] == (
        "the reasons why jobs did not complete are not available: the worker did not answer within 10 s"
    )


@given(
    width=st.integers(20, 200),
    name=st.text("abc-_", min_size=1, max_size=64),
    total=st.integers(1, 10**6),
    failed=st.integers(0, 10**6),
    eta=st.none() | st.floats(0, 10**6),
)
def test_the_count_is_shown_on_a_terminal_of_any_width(
    width: int, name: str, total: int, failed: int, eta: float | None
) -> None:
    """No line is wider than the terminal. The bar is dropped before the times, and the times before the id's end."""
    known = status(experiment_id=name, total=total, counts={"failed": min(failed, total)}, eta_seconds=eta)
    line = follow.fit(width, known)
    parts = [line.name, "=" * line.bar, line.count, line.details, "10:00:00" if line.elapsed else ""]
    assert len(" ".join(filter(None, parts))) <= width
    assert line.count == f"{min(failed, total):,}/{total:,}"
    assert line.elapsed or not line.bar
    assert line.name == f"{name} running" or not line.elapsed
    assert "left" not in line.details or line.elapsed


def test_a_narrow_terminal_shows_less() -> None:
    """With decreasing width the line loses the bar, the times, the end of the id, and the unsuccessful jobs."""
    known = status(experiment_id="reef-heat-1c375451b7", counts={"failed": 3, "pending": 7}, eta_seconds=75)
    lines = [follow.fit(width, known) for width in (80, 70, 60, 40, 30, 20)]
    assert [line.name for line in lines] == [
        *["reef-heat-1c375451b7 running"] * 3,
        "reef-heat-1c375... running",
        "reef-heat-1c37... running",
        "",
    ]
    assert [line.details for line in lines] == [*["3 failed, 75 s left"] * 2, "3 failed", "3 failed", "", ""]
    assert [(line.bar > 0, line.elapsed) for line in lines] == [(True, True), (False, True), *[(False, False)] * 4]
