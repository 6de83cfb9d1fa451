"""Every table and the bar, as a terminal of 80 and of 60 columns shows them."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
import typer

from ems_worker.cli import dlq, fitting, follow, listing, lists, tables, views, worker
from ems_worker.client import dead_letters as dead_letter
from ems_worker.core import ids
from tests.support import known, screens

LONG = "reef-heat-2026-11-28-1c375451b7"
LISTED = [
    known.status(
        LONG,
        experiment_name="A reef in the heat of a long summer",
        counts={"completed": 1200, "failed": 31, "lost": 2, "pending": 100},
        total=1333,
        publisher="ada",
    ),
    known.status("lr-sweep", state="paused", pauses=["person"], experiment_name="学習率のスイープ実験"),
    *[known.status(f"gen-{number:06d}", group="evolution-study", total=12000) for number in range(500, 0, -1)],
]
NAMES = {"optimizer.lr": "optimizer.lr", "optimizer.momentum": "m", "model.layers": "l", "site": "s", "version": "v"}


def point(number: int, lr: float, mean: float | None, n: int, **changes: Any) -> dict[str, Any]:
    params = {"optimizer.lr": lr, "optimizer.momentum": 0.8, "model.layers": [64, number], "version": 3}
    site = {"site": "魚のサンゴ礁" if number % 2 else "cafe\u0301 du re\u0301cif"}
    metrics = {"loss": {"n": n, "mean": None if mean is None else 1234.5 * mean, "std": 3.2}}
    score = {"score": {"n": n, "mean": mean, "std": 0.012 if n > 1 else None}}
    counts = {"completed": n, "failed": 8 - n}
    basic = {"point": number, "run_id_suffix": None, "counts": counts}
    return {**basic, "params": params | site, "metrics": metrics | score, **changes}


POINTS = [
    point(0, 0.1, 0.91234, 8),
    point(1, 0.01, 0.8, 5),
    point(12, 0.001, 0.75, 1),
    point(13, 1e-05, None, 0, excluded="bad memory on n17"),
]
DETAILS = {
    "experiment_id": LONG,
    "parameters": NAMES,
    "metrics": {"loss": {}, "score": {}},
    "best": {"metric": "score", "goal": "maximize"},
    "points": 1204,
}


def jobs() -> None:
    table = listing.Table(NAMES, 2, {})
    for number, lr in enumerate((0.1, 0.01, 1e-05)):
        run = ids.simulation_id(LONG, number, 0, 1)
        params = point(number, lr, None, 0)["params"]
        job = iter([listing.Job(0, 951979130700066, run)])
        table.show(listing.Entry(LONG, number, "a-suffix", params, {}, job, 2))
    table.flush()


def dead_letters() -> None:
    at = datetime(2026, 11, 28, 10, tzinfo=UTC)
    reason = "the event contradicts the end of its run, which completed before, 魚"
    origin: dict[str, Any] = {
        "stream": "SIM_EVENTS",
        "original_seq": 7,
        "delivered": 1,
        "sha256": "ab",
        "at": at,
        "data": None,
    }
    dlq.show_list(
        [
            dead_letter.DeadLetter(
                seq=seq, kind="event", reason=reason, subject="sim.run_completed.reef", size=size, **origin
            )
            for seq, size in ((1, 120), (12345, 1_200_000))
        ]
    )


def settings() -> None:
    with pytest.raises(typer.Exit):
        worker.show(config=None)


TABLES: dict[str, tuple[Callable[[], None], list[str]]] = {
    "list": (lambda: lists.show(lists.lines(LISTED), lists.Listing()), [LONG, "lr-sweep", "evolution-study/"]),
    "group": (lambda: lists.show_group(LISTED[2:6], 0), ["gen-000500", "4 experiments: 4 running"]),
    "points of a result": (lambda: views.points(POINTS, DETAILS), ["0.912 ± 0.010", "5/8", "1,200 more points"]),
    "dead letters": (dead_letters, ["12345", "the event contradicts the end of its"]),
    "settings": (settings, ["orchestrator_plaintext", "nats://127.0.0.1:4222", "default"]),
    "points of a plan": (jobs, [f"{LONG}-p000002-r000-a1"]),
}


@pytest.mark.parametrize("columns", [60, 80])
@pytest.mark.parametrize("table", TABLES)
def test_a_table_fits_the_terminal(table: str, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No row takes two lines, what identifies it is whole, and what is left out is named."""
    show, whole = TABLES[table]
    with screens.showing(columns, monkeypatch) as screen:
        show()
    lines = screen.lines
    printed = screen.raw.replace("\x1b[1m", "").replace("\x1b[0m", "").rstrip().split("\n")
    assert len(lines) == len(printed), lines
    for part in whole:
        assert any(part in line for line in lines), part
    assert "not shown: " in screen.raw


@pytest.mark.parametrize(("columns", "cut"), [(60, True), (80, True), (200, False)])
def test_wide_characters_are_cut_and_padded_by_their_width(
    columns: int, cut: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two columns for those of East Asia, none for marks: the next column begins at one place in all rows."""
    long = ("学習率のスイープ実験、魚のサンゴ礁、長い説明", "cafe\u0301 " * 9, "x")
    rows = [[str(number), name, "end"] for number, name in enumerate(long)]
    columns_of_table = [fitting.Column("id"), fitting.Column("name", cut=12), fitting.Column("last" + "." * 30)]
    with screens.showing(columns, monkeypatch) as screen:
        tables.show(columns_of_table, rows)
    emulator = screen.emulator
    at = {
        column
        for row in range(1, 4)
        for column in range(columns)
        if "".join(emulator.buffer[row][index].data for index in range(column, min(column + 3, columns))) == "end"
    }
    assert len(at) == 1
    assert ("..." in screen.lines[1]) is cut


def test_without_a_terminal_everything_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs and editors read long lines."""
    lists.show(lists.lines(LISTED), lists.Listing())
    views.points(POINTS, DETAILS)
    printed = capsys.readouterr()
    assert "A reef in the heat of a long summer" in printed.out
    assert "bad memory on n17" in printed.out
    assert "not shown" not in printed.err
    assert "\x1b" not in printed.out


@pytest.mark.parametrize(
    ("variable", "value", "escapes"),
    [("NO_COLOR", "1", {"\x1b[1m", "\x1b[0m"}), ("TERM", "dumb", set()), ("TERM", "xterm", {"\x1b[1m", "\x1b[0m"})],
)
def test_a_table_has_no_colours(variable: str, value: str, escapes: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its header is bold, except on a terminal that can't show that."""
    with screens.showing(80, monkeypatch) as screen:
        monkeypatch.setenv(variable, value)
        lists.show(lists.lines(LISTED), lists.Listing())
    assert {part[: part.index("m") + 1] for part in _escapes(screen.raw)} == escapes


def _escapes(raw: str) -> list[str]:
    return [f"\x1b{part}" for part in raw.split("\x1b")[1:]]


def bar(columns: int, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> screens.Screen:
    """What a terminal shows while a bar is drawn."""
    status = {**LISTED[0], "counts": {"completed": 400}, "total": 1000, "eta_seconds": 75, **changes}
    with screens.showing(columns, monkeypatch) as screen:
        shown = follow.BarFollower()
        with shown:
            shown.show(status)
            shown.refresh()
            seen = screens.Screen(columns)
            seen.tty.write(screen.raw)
    return seen


@pytest.mark.parametrize(("columns", "lines"), [(120, 1), (80, 1), (60, 1), (50, 2), (40, 2)])
def test_a_long_id_leaves_room_for_the_bar(columns: int, lines: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is whole, if need be on a line of its own, and the bar is at least ten columns wide."""
    shown = bar(columns, monkeypatch).lines
    assert len(shown) == lines
    assert LONG in shown[0]
    assert shown[-1].count("━") >= 9
    assert "400/1,000" in shown[-1]


@pytest.mark.parametrize("columns", [60, 80])
def test_a_healthy_bar_is_not_red(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is green, and yellow from the first failure on. Without colours it is drawn all the same."""
    assert bar(columns, monkeypatch).colours("━━━━") == {"green"}
    assert bar(columns, monkeypatch, counts={"completed": 400, "failed": 1}).colours("━━━━") == {"brown"}
    assert bar(columns, monkeypatch, state="failed", counts={"failed": 1000}).colours("━━━━") == {"red"}
    monkeypatch.setenv("NO_COLOR", "1")
    assert bar(columns, monkeypatch).colours("━━━━") == {"default"}


def test_the_emulator_shows_what_was_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is too long takes two."""
    with screens.showing(60, monkeypatch) as screen:
        sys.stdout.write("x" * 61 + "\n")
    assert screen.lines == ["x" * 60, "x"]
