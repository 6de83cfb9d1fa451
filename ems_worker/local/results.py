"""The points of an experiment as a table: parameters, number of replicates and metrics, best point first."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import rich.box
import rich.table

from ems_worker.core.documents import headings
from ems_worker.terminal import drawing, text

Document = Mapping[str, Any]

# In a file or a pipe, lines are not wrapped.
_UNBOUNDED = 10_000


def rows(experiment: Document, points: Iterable[Document]) -> list[list[str]]:
    """The header and one row per point, sorted by the mean of the metric that has a goal; points without a mean last.

    `experiment` is a result of EmsClient.get, `points` are those of EmsClient.points.
    """
    parameters, metrics = list(experiment["parameters"]), list(experiment["metrics"])
    texts = experiment.get("headings", {})
    header = ["point", *headings.titles(parameters, texts.get("parameters", {})), "replicates"]
    for title in headings.titles(metrics, texts.get("metrics", {})):
        header += [f"{title} mean", "std"]
    best = experiment["best"]
    ordered = list(points)
    if best is not None:
        sign = 1.0 if best["goal"] == "minimize" else -1.0
        ordered.sort(key=lambda point: _rank(point, best["metric"], sign))
    return [header, *(_row(point, parameters, metrics) for point in ordered)]


def show(table: Sequence[Sequence[str]]) -> None:
    """Prints header and rows on stdout: with rules on a terminal, otherwise as plain columns."""
    header, *body = ([text.line(cell) for cell in row] for row in table)
    terminal = sys.stdout.isatty()
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD if terminal else None, pad_edge=False, padding=(0, 1))
    for title in header:
        drawn.add_column(title, justify="right")
    for row in body:
        drawn.add_row(*row)
    drawing.Console(sys.stdout, None if terminal else _UNBOUNDED).print(drawn)


def _rank(point: Document, metric: str, sign: float) -> tuple[bool, float, int]:
    mean = (point["metrics"].get(metric) or {}).get("mean")
    return (mean is None, 0.0 if mean is None else sign * mean, point["point"])


def _row(point: Document, parameters: Sequence[str], metrics: Sequence[str]) -> list[str]:
    row = [str(point["point"]), *(str(point["params"].get(name, "-")) for name in parameters)]
    row.append(str(sum(point["counts"].values())))
    for metric in metrics:
        aggregate = point["metrics"].get(metric) or {}
        row += [_number(aggregate.get("mean")), _number(aggregate.get("std"))]
    return row


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
