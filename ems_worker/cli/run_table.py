"""The table at the end of `ems run`: a row for each point, with n and the mean of each metric and its interval."""

import heapq
from collections.abc import AsyncIterator
from typing import Any

from ems_worker.cli import shell, tables
from ems_worker.core import interval
from ems_worker.core.lifecycle.tally import Bucket

Document = dict[str, Any]

_MAX_POINTS = 50


async def show(details: Document, points: AsyncIterator[Document]) -> None:
    """Prints the points of an experiment, best first if a metric has a goal. Keeps only the printed ones in memory."""
    best, total = details["best"], 0
    kept: list[tuple[float, int, Document]] = []
    sign = 0.0 if best is None else (1.0 if best["goal"] == "minimize" else -1.0)
    async for point in points:
        total += 1
        mean = None if best is None else (point["metrics"].get(best["metric"]) or {}).get("mean")
        # A heap whose first entry is the worst point kept.
        entry = (float("-inf") if mean is None else -sign * mean, -point["point"], point)
        (heapq.heappush if len(kept) < _MAX_POINTS else heapq.heappushpop)(kept, entry)
    parameters, metrics = list(details["parameters"]), list(details["metrics"])
    rows = [_row(point, parameters, metrics) for _, _, point in sorted(kept, reverse=True, key=lambda entry: entry[:2])]
    shell.out("")
    numbers = range(len(parameters), len(parameters) + 1)
    tables.show((*tables.short(parameters), "n", *metrics), rows, numbers=numbers)
    if metrics:
        shell.out("n: completed; ±: 95 % confidence interval of the mean")
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more points: ems export {details['experiment_id']}")


def _row(point: Document, parameters: list[str], metrics: list[str]) -> list[str]:
    total = sum(point["counts"].values())
    known = point["counts"].get(Bucket.COMPLETED.value, 0)
    return [
        *(tables.value(point["params"][name]) if name in point["params"] else "-" for name in parameters),
        f"{known:,}" if known == total else f"{known:,}/{total:,}",
        *(_mean(point["metrics"].get(name), known) for name in metrics),
    ]


def _mean(aggregate: Document | None, known: int) -> str:
    if not aggregate or aggregate["mean"] is None:
        return "-"
    half = interval.half_width(aggregate["n"], aggregate["std"])
    around = "" if half is None else f" ± {half:.2g}"
    fewer = "" if aggregate["n"] == known else f" (n={aggregate['n']:,})"
    return f"{tables.number(aggregate['mean'])}{around}{fewer}"
