"""What `ems ls` and `ems show` print for people."""

import contextlib
import heapq
from typing import TYPE_CHECKING, Any

from ems_worker.cli import changed, keeping, shell, statuses, tables
from ems_worker.core.documents import headings

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# The number of points listed; `ems export` has all of them.
_MAX_POINTS = 50
# What happens to running runs of an experiment that is being cancelled.
_CANCELLING = {"stop": "its running runs are stopped", "drain": "its running runs may end"}


def experiments(listed: list[Document]) -> None:
    """Prints experiments as a table, in the given order."""
    if not listed:
        shell.say("no experiments")
        return
    # Both are rare: a column is left out if it would be empty.
    any_waiting = any(statuses.waiting(status) for status in listed)
    any_stalled = any(_stalled(status) for status in listed)
    header: tuple[str, ...] = (
        "id",
        "state",
        "progress",
        "jobs",
        *(["waiting"] if any_waiting else []),
        "problems",
        "group",
        "created",
        "name",
        *(["reason"] if any_stalled else []),
    )
    rows = [
        (
            status["experiment_id"],
            status["state"],
            f"{status['progress']:.0%}",
            str(status["total"]),
            *([statuses.waiting(status) or "-"] if any_waiting else []),
            statuses.problems(status) or "-",
            status["group"] or "-",
            tables.moment(status["created_at"]),
            status["experiment_name"],
            *([_stalled(status) or "-"] if any_stalled else []),
        )
        for status in listed
    ]
    tables.show(header, rows, numbers=(2, 3))


def _stalled(status: Document) -> str | None:
    """Why an open experiment makes no progress. The reason for an experiment's end is left to `ems show`."""
    reason = statuses.reason(status)
    return reason if status["finished_at"] is None else None


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
        "set": ", ".join(f"{name} {value}" for name, value in details.get("overrides", {}).items()),
        "excluded": statuses.excluded(details),
        "created": details["created_at"],
        "started": details["started_at"],
        "finished": details["finished_at"],
        "size": f"about {keeping.size(details['bytes'])} in the manifest" if details.get("bytes") else None,
    }
    for name, value in facts.items():
        if value:
            # Indented, so that a line of a description can't pose as one of our own.
            indented = str(value).replace("\n", "\n      ")
            shell.out(f"  {name}: {indented}")
    changed.show_latest(details)


async def points_of(ems: "client.EmsClient", details: Document) -> None:
    """Prints the first points, or the best points if a metric has a goal. Keeps only these in memory."""
    best = details["best"]
    sign = 0.0 if best is None else (1.0 if best["goal"] == "minimize" else -1.0)
    kept: list[tuple[float, int, Document]] = []
    total = 0
    async with contextlib.aclosing(ems.points(details["experiment_id"])) as points:
        async for point in points:
            total += 1
            mean = None if best is None else (point["metrics"].get(best["metric"]) or {}).get("mean")
            # A heap whose first entry is the worst point kept.
            entry = (-sign * mean if mean is not None else float("-inf"), -point["point"], point)
            if len(kept) < _MAX_POINTS:
                heapq.heappush(kept, entry)
            else:
                heapq.heappushpop(kept, entry)
    parameters, metrics = list(details["parameters"]), list(details["metrics"])
    texts = details.get("headings", {})
    shown = [point for _, _, point in sorted(kept, reverse=True, key=lambda entry: entry[:2])]
    any_problems = any(statuses.problems(point) for point in shown)
    any_excluded = any(point.get("excluded") for point in shown)
    header = (
        "point",
        "replicates",
        *(["problems"] if any_problems else []),
        *headings.titles(parameters, texts.get("parameters", {}), tables.short(parameters)),
        *headings.titles(metrics, texts.get("metrics", {})),
        *(["excluded"] if any_excluded else []),
    )
    rows = [
        (
            point["run_id_suffix"] or str(point["point"]),
            f"{statuses.ended(point)}/{sum(point['counts'].values())}",
            *([statuses.problems(point) or "-"] if any_problems else []),
            *(tables.value(point["params"][name]) if name in point["params"] else "-" for name in parameters),
            *(tables.mean(point["metrics"].get(name)) for name in metrics),
            *([point.get("excluded") or "-"] if any_excluded else []),
        )
        for point in shown
    ]
    shell.out("")
    tables.show(header, rows)
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more points: ems export {details['experiment_id']}")
