"""What `ems show` and `ems config` print, with a client that returns fixed documents."""

import re
from collections.abc import AsyncGenerator, Callable
from typing import Any, Self

import pytest
import typer

from ems_worker import client
from ems_worker.cli import exits, results, views
from tests.support import known

DETAILS = {"experiment_id": "reef", "parameters": {"layer.food": "layer.food"}, "metrics": {"population": {}}}


def point(number: int, mean: float | None, failed: int = 0) -> dict[str, Any]:
    aggregate = {"n": 1, "mean": mean, "std": None, "missing": 0}
    counts = {"completed": 1 - failed, "failed": failed}
    params = {"layer.food": 10 * number}
    return {
        "point": number,
        "run_id_suffix": None,
        "counts": counts,
        "params": params,
        "metrics": {"population": aggregate},
    }


class _Points(client.EmsClient):
    """A client of an experiment with these points."""

    def __init__(self, points: list[dict[str, Any]]) -> None:
        super().__init__()
        self._points = points

    async def points(self, experiment_id: str) -> AsyncGenerator[dict[str, Any], None]:
        for document in self._points:
            yield document


async def shown_points(
    capsys: pytest.CaptureFixture[str], points: list[dict[str, Any]], goal: str | None
) -> tuple[list[str], list[int], str]:
    """The header, the numbers of the points that are listed, and the last line."""
    best = None if goal is None else {"metric": "population", "goal": goal}
    details = {**DETAILS, "best": best, "points": len(points)}
    views.points(await views.points_of(_Points(points), details), details)
    _, header, *rows = capsys.readouterr().out.splitlines()
    numbered = [row for row in rows if row.split()[0].isdigit()]
    return header.split(), [int(row.split()[0]) for row in numbered], (rows if len(points) > 20 else numbered)[-1]


@pytest.mark.parametrize(
    ("goal", "expected"),
    [("maximize", list(range(59, 39, -1))), ("minimize", list(range(20))), (None, list(range(20)))],
)
async def test_the_best_20_points_are_shown(
    capsys: pytest.CaptureFixture[str], goal: str | None, expected: list[int]
) -> None:
    """With a goal the best points come first, without one the first points, and the others are counted."""
    points = [point(number, float(number)) for number in range(60)]
    header, numbers, last_line = await shown_points(capsys, points, goal)
    assert header == ["point", "n", "food", "population"]
    assert numbers == expected
    assert last_line == "... and 40 more points: -n 0 shows all"


async def test_so_many_points_are_kept_as_are_asked_for() -> None:
    """0 is for all of them."""
    points = [point(number, float(number)) for number in range(60)]
    details = {**DETAILS, "best": None, "points": 60}
    for limit, count in ((3, 3), (0, 60)):
        assert len(await views.points_of(_Points(points), details, limit)) == count


async def test_a_mean_says_over_how_many_replicates_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    """`n` has the completed of all replicates, and a mean its own number where a metric is missing."""
    counts = {"completed": 5, "failed": 3}
    points = [
        {**point(0, 0.5), "counts": counts, "metrics": {"population": {"n": 5, "mean": 0.5, "std": 0.1}}},
        {**point(1, 0.25), "counts": {"completed": 8}, "metrics": {"population": {"n": 4, "mean": 1234.5, "std": 0.2}}},
    ]
    views.points(points, {**DETAILS, "best": None, "points": 2})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:4] == [
        "point    n  problems  food             population",
        "    0  5/8  3 failed     0      0.50 ± 0.12",
        "    1    8  -           10  1,234.50 ± 0.32 (n=4)",
    ]


async def test_points_have_labels_and_units(capsys: pytest.CaptureFixture[str]) -> None:
    """A worker of before doesn't send any."""
    headings = {"parameters": {"layer.food": {"unit": "kg"}}, "metrics": {"population": {"label": "fish"}}}
    views.points([point(0, 1.0)], {**DETAILS, "headings": headings, "best": None, "points": 1})
    assert re.split(r" {2,}", capsys.readouterr().out.splitlines()[1]) == ["point", "n", "food [kg]", "fish"]


@pytest.mark.parametrize("goal", ["maximize", "minimize"])
async def test_points_without_a_mean_come_last(capsys: pytest.CaptureFixture[str], goal: str) -> None:
    """A point without a result is never among the best, and equal points are in the order of their numbers."""
    _, numbers, _ = await shown_points(capsys, [point(0, None), point(1, 5.0), point(2, 5.0)], goal)
    assert numbers == [1, 2, 0]


async def test_points_have_a_column_of_problems_if_there_are_any(capsys: pytest.CaptureFixture[str]) -> None:
    """The column counts the jobs that did not complete."""
    header, _, last_line = await shown_points(capsys, [point(0, 1.0), point(1, None, failed=1)], None)
    assert header[:3] == ["point", "n", "problems"]
    assert last_line.split() == ["1", "0/1", "1", "failed", "10", "-"]


@pytest.mark.parametrize(("number", "shown"), [(1, False), (2, True)])
def test_a_later_round_is_shown(number: int, shown: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """The details name the round from the second on, and the lines of a description are indented."""
    counts = {"completed": 1}
    facts = dict.fromkeys(
        ("group", "publisher", "created_at", "started_at", "finished_at", "reason", "best", "eta_seconds")
    )
    named = {"experiment_name": "reef", "description": "one\ntwo", "tags": ["a", "b"], "round": number}
    state = {"experiment_id": "reef", "state": "running", "counts": counts, "total": 1, "progress": 1.0}
    views.details_of({**facts, **named, **state, "throughput": None, "metrics": {}})
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:5] == ["  name: reef", "  about: one", "      two", "  tags: a, b"]
    assert ("  round: 2" in lines) is shown


async def test_excluded_points_say_why(capsys: pytest.CaptureFixture[str]) -> None:
    """The column is there only if a point is excluded."""
    header, _, last_line = await shown_points(capsys, [point(0, 1.0), {**point(1, 2.0), "excluded": "too hot"}], None)
    assert header[-1] == "excluded"
    assert last_line.split()[-2:] == ["too", "hot"]


@pytest.fixture
def replace_client(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes commands use a client with these methods."""

    def replace(**methods: Any) -> None:
        class Fake:
            def __init__(self, *arguments: Any, **options: Any) -> None:
                """Connects to nothing."""

            async def __aenter__(self) -> Self:
                return self

            async def __aexit__(self, *exception: object) -> None:
                """Has nothing to close."""

        methods["experiments"] = lambda **which: known.experiments([known.status("reef")], **which)
        for name, method in methods.items():
            setattr(Fake, name, staticmethod(method))
        monkeypatch.setattr(client, "EmsClient", Fake)

    return replace


def exit_code(command: Callable[..., None], *arguments: str) -> exits.Exit:
    with pytest.raises(typer.Exit) as caught:
        command(*arguments)
    return exits.Exit(caught.value.exit_code)


@pytest.mark.parametrize(
    ("config_sha", "code", "out", "err"),
    [
        ("same", exits.Exit.OK, "a: 1\n", ""),
        (None, exits.Exit.OK, "a: 1\n", "reef-p000000-r000-a1 has not been submitted yet"),
        ("other", exits.Exit.FAILED, "", "error: this is not the configuration that reef-p000000-r000-a1 got"),
    ],
)
def test_a_configuration_is_checked_against_the_recorded_digest(
    replace_client: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    config_sha: str | None,
    code: exits.Exit,
    out: str,
    err: str,
) -> None:
    """A configuration with another digest is not printed, and before the submission there is no digest to check."""

    async def config(simulation_id: str) -> client.RunConfig:
        return client.RunConfig(simulation_id, 1, config_sha, "same", "a: 1\n")

    replace_client(config=config)
    assert exit_code(results.config, "reef-p000000-r000-a1") is code
    printed = capsys.readouterr()
    assert printed.out == out
    assert printed.err.startswith(err)
    assert bool(printed.err) is bool(err)
