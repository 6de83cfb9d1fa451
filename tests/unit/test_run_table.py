"""The table of `ems run`: n, means and their intervals, the best point first."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from ems_worker.cli import run_table


def point(number: int, lr: float, mean: float | None, *, n: int = 3, completed: int = 3, of: int = 3) -> dict[str, Any]:
    metrics = {"score": {"n": n, "mean": mean, "std": None if n < 2 else 0.1}}
    return {
        "point": number,
        "params": {"opt.lr": lr, "kind": "\x1b[31m"},
        "counts": {"completed": completed, "failed": of - completed},
        "metrics": metrics,
    }


async def shown(
    capsys: pytest.CaptureFixture[str], *points: dict[str, Any], goal: str | None = "maximize"
) -> list[list[str]]:
    """The words of each line that is printed."""
    best = None if goal is None else {"metric": "score", "goal": goal}
    details: dict[str, Any] = {
        "experiment_id": "x",
        "parameters": ["opt.lr", "kind"],
        "metrics": {"score": {}},
        "best": best,
    }

    async def listed() -> AsyncIterator[dict[str, Any]]:
        for each in points:
            yield each

    await run_table.show(details, listed())
    return [line.split() for line in capsys.readouterr().out.splitlines() if line]


async def test_a_point_has_n_and_the_interval_of_its_mean(capsys: pytest.CaptureFixture[str]) -> None:
    """n says how many of its replicates completed, and a mean of fewer values says of how many."""
    points = [point(0, 0.1, 0.5), point(1, 0.2, 0.6, n=2, completed=2), point(2, 0.3, 0.7, n=1, completed=2)]
    header, *rows = await shown(capsys, *points, point(3, 0.4, None, n=0, completed=0), goal=None)
    assert header == ["lr", "kind", "n", "score"]
    assert rows[:4] == [
        ["0.1", "�[31m", "3", "0.5", "±", "0.25"],
        ["0.2", "�[31m", "2/3", "0.6", "±", "0.9"],
        ["0.3", "�[31m", "2/3", "0.7", "(n=1)"],
        ["0.4", "�[31m", "0/3", "-"],
    ]


@pytest.mark.parametrize(("goal", "order"), [("maximize", ["0.2", "0.1", "0.3"]), ("minimize", ["0.1", "0.2", "0.3"])])
async def test_the_best_point_comes_first(capsys: pytest.CaptureFixture[str], goal: str, order: list[str]) -> None:
    """Points without a mean come last."""
    points = [point(0, 0.3, None), point(1, 0.1, 0.5), point(2, 0.2, 0.6)]
    _, *rows = await shown(capsys, *points, goal=goal)
    assert [row[0] for row in rows[:3]] == order


async def test_the_best_of_many_points_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """How many there are besides is said."""
    lines = await shown(capsys, *(point(number, number, number / 100) for number in range(60)))
    assert [line[0] for line in lines[1:51]] == [str(number) for number in range(59, 9, -1)]
    assert lines[-1][:4] == ["...", "and", "10", "more"]
