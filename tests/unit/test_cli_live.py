"""What the live screen draws: it fits any size, says the most important first, and never shows less than it could."""

from datetime import UTC, datetime
from typing import Any

import pytest
import rich.text
from hypothesis import given
from hypothesis import strategies as st

from ems_worker.cli import failures
from ems_worker.cli.live import bars, layout, one, several, watched
from ems_worker.core.lifecycle.tally import Bucket
from ems_worker.terminal import screen

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
COUNTS = st.dictionaries(st.sampled_from([bucket.value for bucket in Bucket]), st.integers(0, 2000))


def job(number: int, **more: Any) -> dict[str, Any]:
    began = f"2026-11-28T11:59:{number:02d}.000Z"
    run = {"simulation_id": f"reef-p{number:06d}-r000-a1", "started_at": began, "finished_at": None, "state": "running"}
    return {**run, "host": "n17", "slot": "3", "step": number, "total": 100, **more}


def point(number: int, mean: float, n: int = 5, std: float | None = 0.5) -> dict[str, Any]:
    aggregate = {"mean": mean, "std": std, "n": n}
    params = {"learning_rate": number / 10, "layers": number, "optimizer": "adam"}
    return {"point": number, "run_id_suffix": None, "params": params, "metrics": {"score": aggregate}}


def experiment(**changes: Any) -> watched.Experiment:
    """An experiment in the middle of its work, with something in each section."""
    counts = {"pending": 600, "running": 40, "completed": 300, "failed": 12, "lost": 1}
    best = {**point(2, 9.5), "metric": "score", "goal": "maximize", "mean": 9.5, "std": 0.5, "n": 5}
    status = {
        "experiment_id": "reef",
        "experiment_name": "A reef in the heat",
        "state": "running",
        "round": 2,
        "counts": counts,
        "total": 953,
        "progress": 0.33,
        "throughput": 2.5,
        "eta_seconds": 256.0,
        "started_at": "2026-11-28T11:57:00.000Z",
        "finished_at": None,
        "reason": None,
        "pauses": [],
        "best": best,
        **changes,
    }
    details = {"parameters": {"learning_rate": "a.learning_rate", "layers": "layers", "optimizer": "optimizer"}}
    shown = watched.Experiment({**details, "experiment_id": "reef", "points": 200}, status)
    shown.running = [job(number) for number in range(30)]
    shown.reasons = [failures.Reason(12, "failed, simulation: out of memory", "reef-p000003-r000-a1")]
    shown.best = [point(number, 10.0 - number) for number in range(40)]
    return shown


def drawn(lines: list[rich.text.Text]) -> list[str]:
    return [line.plain for line in lines]


def picture(width: int, height: int, **changes: Any) -> list[str]:
    return drawn(one.lines(experiment(**changes), width, height, now=NOW, utf8=True))


@given(COUNTS, st.integers(1, 120))
def test_every_state_with_jobs_has_a_place_in_the_bar(counts: dict[str, int], width: int) -> None:
    """The bar is as wide as it should be, and a state has about its share of it."""
    bar = bars.bar(counts, width, utf8=True)
    assert len(bar.plain) == width
    total = sum(counts.values())
    present = [name for name, number in counts.items() if number]
    if total and len(present) <= width:
        given = bars.cells(counts, width)
        assert sorted(given) == sorted(present)
        for bucket, cells in given.items():
            assert abs(cells - counts[bucket.value] * width / total) <= len(present)
            assert cells >= 1


def test_a_bar_can_be_read_without_colours() -> None:
    """Each state has a character of its own, with and without UTF-8; only submitting and submitted share one."""
    for characters in ([look.character for look in bars.LOOKS.values()], [look.plain for look in bars.LOOKS.values()]):
        assert len(set(characters)) == len(bars.LOOKS) - 1
    assert set(bars.LOOKS) == set(Bucket)
    assert bars.bar({"completed": 3, "failed": 1}, 8, utf8=False).plain == "######xx"


def test_only_failures_are_red() -> None:
    """The bar of an experiment without failed or lost jobs has no red in it."""
    red = {bucket for bucket, look in bars.LOOKS.items() if "red" in look.style}
    assert red == {Bucket.FAILED, Bucket.LOST}


@pytest.mark.parametrize("width", [80, 60])
def test_an_experiment_is_shown_with_all_that_matters(width: int) -> None:
    """State, bar, numbers, what runs longest, why jobs failed, the best points with n and interval."""
    lines = picture(width, 40)
    text = "\n".join(lines)
    assert lines[0].startswith("reef  running  round 2  3 min")
    assert "█ 300 completed" in text
    assert "x 12 failed" in text
    assert "313 of 953 jobs ended (33%), 2.5 per second, about 4 min left" in text.replace("\n", " ")
    assert "running now  40" in lines
    assert "reef-p000000-r000-a1  60 s    0%  n17, slot 3" in lines
    assert "  12  reef-p000003-r000-a1  failed, simulation: out of" in text
    assert "best points  by score, highest first" in lines
    assert any(line.split()[:5] == ["0", "10", "±", "0.621", "5"] for line in lines)


@given(st.integers(20, 120), st.integers(1, 60))
def test_the_screen_is_never_overfull(width: int, height: int) -> None:
    """Neither in lines nor in columns; only single words that are wider than the screen are cut later."""
    lines = picture(width, height)
    assert len(lines) <= height
    assert [line for line in lines if len(line) > max(width, 70)] == []


@given(st.integers(12, 60))
def test_no_line_is_left_empty_while_something_is_left_out(height: int) -> None:
    """Sections share the height: where there are more lines than room, all of the room is used but for one frame."""
    lines = picture(80, height)
    if any(line.startswith("... and") for line in lines):
        assert len(lines) >= height - 4


def test_a_narrow_table_has_the_first_columns_whole() -> None:
    """Ids are never cut for other columns, and numbers end at the same column."""
    rows = [("reef-p000001-r000-a1", "4 s", "n1"), ("reef-p000002-r000-a1", "12 min", "n2")]
    for width, columns in ((80, 3), (30, 2), (22, 1)):
        header, lines = layout.table(("run", "for", "on"), rows, width, right=(1,))
        assert len(header.plain.split()) == columns
        assert [line.plain[:20] for line in lines] == [row[0] for row in rows]
        assert all(line.cell_len <= width for line in lines)
    _, lines = layout.table(("run", "for", "on"), rows, 80, right=(1,))
    assert {line.plain.index("  n") for line in lines} == {28}


def test_a_long_reason_is_cut_and_the_run_beside_it_is_whole() -> None:
    """Whoever wants the whole reason needs the id. On a screen without room for a few words there is only the id."""
    rows = [("1", "reef-p000001-r000-a1", "failed, simulation: " + "a long story " * 9)]
    _, (line,) = layout.table(("jobs", "for example", "why"), rows, 60, right=(0,), cut=True)
    assert line.plain.startswith("   1  reef-p000001-r000-a1  failed, simulation:")
    assert (line.plain[-3:], line.cell_len) == ("...", 60)
    _, (line,) = layout.table(("jobs", "for example", "why"), rows, 40, right=(0,), cut=True)
    assert line.plain == "   1  reef-p000001-r000-a1"


def test_wide_characters_keep_columns_aligned() -> None:
    """A name in Chinese takes two columns a character."""
    _, lines = layout.table(("name", "n"), [("礁石", "1"), ("reef", "2")], 20)
    assert [line.cell_len for line in lines] == [7, 7]


def test_an_ended_experiment_runs_nothing() -> None:
    """Its throughput and the time left are not shown any more."""
    text = "\n".join(picture(80, 40, state="completed", finished_at="2026-11-28T11:59:00.000Z"))
    assert "running now" not in text
    assert "per second" not in text
    assert "2 min" in text


def test_a_reason_is_under_the_numbers() -> None:
    """Why nothing starts is the first thing that a person wants to know."""
    lines = picture(80, 40, state="paused", pauses=["person"])
    assert "paused by a person" in lines
    assert one.keys({"pauses": ["person"]}) == "p resume   c cancel   q quit"
    assert one.keys({"pauses": []}) == "p pause   c cancel   q quit"


def listed(number: int, **more: Any) -> dict[str, Any]:
    counts = {"completed": number, "pending": 100 - number}
    numbers = {"counts": counts, "total": 100, "eta_seconds": 60, "finished_at": None}
    return {"experiment_id": f"generation-{number:03d}", "state": "running", **numbers, **more}


@pytest.mark.parametrize("width", [80, 60, 40, 24])
def test_several_experiments_have_a_line_each(width: int) -> None:
    """Id, state and numbers stay as long as they fit; the bar, the time left and the problems go first."""
    lines = drawn(several.lines([listed(number) for number in range(5)], "generation-002", width, 20, utf8=True))
    assert len(lines) == 5
    assert [line[0] for line in lines] == [" ", " ", ">", " ", " "]
    if width >= 40:
        assert all(f"generation-{number:03d}  running" in line for number, line in enumerate(lines))
        assert all(f"{number}/100" in line and len(line.rstrip()) <= width for number, line in enumerate(lines))
    assert any("·" in line for line in lines) is (width >= 60)


@given(st.integers(0, 99), st.integers(2, 30))
def test_the_chosen_one_is_always_on_the_screen(chosen: int, height: int) -> None:
    """The list scrolls with it, and says where it is."""
    statuses = [listed(number) for number in range(100)]
    lines = drawn(several.lines(statuses, f"generation-{chosen:03d}", 80, height, utf8=True))
    assert len(lines) == height
    assert [line for line in lines if line.startswith(f"> generation-{chosen:03d}")]
    assert "of 100" in lines[-1]


@pytest.mark.parametrize(
    ("throughput", "shown"), [(12.345, "12.3 per second"), (0.5, "30 per minute"), (0.001, "3.6 per hour")]
)
def test_a_slow_pace_is_told_by_the_minute_or_hour(throughput: float, shown: str) -> None:
    """A number below one says little."""
    assert one.pace(throughput) == shown


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("q", ["q"]),
        ("\x1b[A\x1b[B\x1bOB", ["up", "down", "down"]),
        ("\r", ["enter"]),
        ("\x1b", ["escape"]),
        ("\x1b[5~\x1b[1;5C", []),
        ("ab", ["a", "b"]),
        ("é", ["é"]),
    ],
)
def test_keys_have_names(typed: str, names: list[str]) -> None:
    """Several may arrive together; sequences of keys that aren't used are dropped whole."""
    assert screen.keys(typed) == names
