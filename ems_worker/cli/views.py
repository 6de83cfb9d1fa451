"""What `ems show` prints for people."""

import contextlib
import heapq
from typing import TYPE_CHECKING, Any

from ems_worker.cli import changed, numbers, shell, statuses, tables
from ems_worker.cli.fitting import Column
from ems_worker.core.documents import headings
from ems_worker.core.lifecycle.tally import Bucket

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# The number of points listed unless -n says otherwise.
MAX_POINTS = 20
# More than there are parameters or metrics: a step in the order in which columns are left out.
_MANY = 1_000_000
# Columns of the terminal that a text keeps.
_MIN_VALUE = 8
# What happens to running runs of an experiment that is being cancelled.
_CANCELLING = {"stop": "its running runs are stopped", "drain": "its running runs may end"}


def details_of(details: Document) -> None:
    """Prints an experiment's status and description; `details` is its `ems.api.get` document."""
    statuses.show_summary(details)
    facts = {
        "name": details["experiment_name"],
        "about": details["description"],
        "group": details["group"],
        "tags": ", ".join(details["tags"]),
        "round": details["round"] if details["round"] > 1 else None,
        "paused by": ", ".join(details.get("pauses", [])),
        "cancelling": _CANCELLING.get(details.get("cancelling") or ""),
        "kept open": "until `ems close`" if details.get("kept_open") and details["finished_at"] is None else None,
        "set": ", ".join(f"{name} {tables.value(value)}" for name, value in details.get("overrides", {}).items()),
        "excluded": statuses.excluded(details),
        "publisher": details.get("publisher"),
        "created": details["created_at"],
        "started": details["started_at"],
        "finished": details["finished_at"],
        "size": f"about {numbers.size(details['bytes'])} in the manifest" if details.get("bytes") else None,
    }
    for name, value in facts.items():
        if value:
            # Indented, so that a line of a description can't pose as one of our own.
            first, *more = str(value).split("\n")
            tables.paragraph(f"  {name}: {first}", 6)
            for line in more:
                tables.paragraph(f"      {line}", 6)
    changed.show_latest(details)


async def points_of(
    ems: "client.EmsClient", details: Document, limit: int = MAX_POINTS, *, ranked: bool = False
) -> list[Document]:
    """The first points, or the best points if a metric has a goal; all if `limit` is 0. Keeps only these in memory.

    With `ranked` only those that have a rank: a mean of the metric with the goal, and not excluded.
    """
    best = details["best"]
    sign = 0.0 if best is None else (1.0 if best["goal"] == "minimize" else -1.0)
    kept: list[tuple[float, int, Document]] = []
    async with contextlib.aclosing(ems.points(details["experiment_id"])) as points:
        async for point in points:
            mean = None if best is None else (point["metrics"].get(best["metric"]) or {}).get("mean")
            if ranked and (mean is None or point.get("excluded")):
                continue
            # A heap whose first entry is the worst point kept.
            entry = (-sign * mean if mean is not None else float("-inf"), -point["point"], point)
            if not limit or len(kept) < limit:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    return [point for _, _, point in sorted(kept, reverse=True, key=lambda entry: entry[:2])]


def points(shown: list[Document], details: Document) -> None:
    """Prints points as a table.

    Where there is no room, the reason of an exclusion is left out first, then the problems, parameters that are the
    same in all rows, the other parameters and then the metrics, each from the last one on.
    """
    names, metrics, texts = list(details["parameters"]), _ranked(details), details.get("headings", {})
    any_problems = any(statuses.problems(point) for point in shown)
    any_excluded = any(point.get("excluded") for point in shown)
    totals = [sum(point["counts"].values()) for point in shown]
    known = [point["counts"].get(Bucket.COMPLETED.value, 0) for point in shown]
    columns: list[tuple[Column, list[tables.Cell]]] = [
        (Column("point"), [point["run_id_suffix"] or str(point["point"]) for point in shown]),
        (Column("n"), [f"{n:,}" if n == of else f"{n:,}/{of:,}" for n, of in zip(known, totals, strict=True)]),
    ]
    if any_problems:
        columns.append((Column("problems", drop=3 * _MANY + 1), [statuses.problems(point) or "-" for point in shown]))
    titles = headings.titles(names, texts.get("parameters", {}), tables.short(names))
    for number, (name, title) in enumerate(zip(names, titles, strict=True)):
        cells = [tables.cell(point["params"][name]) if name in point["params"] else "-" for point in shown]
        same = len(set(map(str, cells))) == 1
        columns.append((Column(title, drop=(2 if same else 1) * _MANY + number, cut=_MIN_VALUE), cells))
    titles = headings.titles(metrics, texts.get("metrics", {}))
    for number, (name, title) in enumerate(zip(metrics, titles, strict=True)):
        means = numbers.means([point["metrics"].get(name) for point in shown], known)
        columns.append((Column(title, drop=number), list(means)))
    if any_excluded:
        reasons = [point.get("excluded") or "-" for point in shown]
        columns.append((Column("excluded", drop=3 * _MANY + 2, cut=_MIN_VALUE), list(reasons)))
    shell.out("")
    rows = list(zip(*(cells for _, cells in columns), strict=True))
    tables.show([column for column, _ in columns], rows, instead="ems export, or a wider window")
    if any(known) and metrics:
        shell.out("n: completed replicates; ±: 95 % confidence interval")
    left = details["points"] - len(shown)
    if left > 0:
        shell.out(f"... and {numbers.counted(left, 'more point')}: -n 0 shows all")


def _ranked(details: Document) -> list[str]:
    """The tracked metrics, first the one that ranks points."""
    metrics = list(details["metrics"])
    first = details["best"]["metric"] if details["best"] else None
    return sorted(metrics, key=lambda name: name != first)
