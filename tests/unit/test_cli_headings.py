"""Labels and units in what commands print."""

from pathlib import Path
from typing import Any

import pytest
import typer

from ems_worker.cli import points, statuses
from ems_worker.cli.formats import PointFormat

PLAN = """\
experiment_id: reef
base_config: {food: 1, heat: 20.5, kind: cod}
parameter_space:
  food: [5, 10]
  heat: {values: [18.5], as: warmth%s}
  kind: {values: [cod]%s}
"""


def listed(path: Path, capsys: pytest.CaptureFixture[str], *more: str, **options: Any) -> str:
    """What `ems points` prints for the plan with these keys of two axes."""
    path.write_text(PLAN % more)
    with pytest.raises(typer.Exit):
        points.points(str(path), **options)
    return capsys.readouterr().out


def test_a_table_of_points_shows_labels_and_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A label that two parameters have doesn't say which is meant; rows for programs go by the names in any case."""
    path = tmp_path / "plan.yaml"
    label = ", label: water temperature"
    one = listed(path, capsys, f"{label}, unit: °C", "")
    assert one.splitlines()[0].split("  ")[2:4] == ["water temperature [°C]", "kind"]
    both = listed(path, capsys, f"{label}, unit: °C", label)
    assert both.splitlines()[0].split("  ")[2:4] == ["warmth [°C]", "kind"]
    for kind in (PointFormat.CSV, PointFormat.JSONL):
        assert listed(path, capsys, label, "", kind=kind) == listed(path, capsys, "", "", kind=kind)


def test_a_summary_has_labels_and_units_of_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    """But of a metric that no result has the name, which may be misspelt."""
    some, none = ({"n": number, "mean": 4.0, "std": None, "missing": 1} for number in (1, 0))
    status = {
        "experiment_id": "reef",
        "state": "completed",
        "counts": {"completed": 1},
        "total": 1,
        "progress": 1.0,
        "finished_at": "2026-11-28T10:00:00.000Z",
        "reason": None,
        "best": None,
        "metrics": {"m": some, "n": none},
        "headings": {"metrics": {"m": {"label": "fish", "unit": "kg"}, "n": {"label": "food"}}},
    }
    statuses.show_summary(status)
    assert [line.partition(":")[0] for line in capsys.readouterr().out.splitlines()[1:]] == ["  fish [kg]", "  n"]
