"""What `ems ls` and `ems show` print for people."""

import contextlib
import heapq
from typing import TYPE_CHECKING, Any

from ems_worker.cli import follow, shell, tables

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# Points that are listed; `ems export` has them all.
_POINTS = 50


def experiments(found: list[Document]) -> None:
    """Experiments as a table, in the order given."""
    if not found:
        shell.say("no experiments")
        return
    # Rare, and no trouble: a column of its own, where there is something in it.
    waiting = any(follow.waiting(one) for one in found)
    stalled = any(_stalled(one) for one in found)
    header: tuple[str, ...] = (
        "id",
        "state",
        "ended",
        "jobs",
        *(["waiting"] if waiting else []),
        "trouble",
        "group",
        "created",
        "name",
    )
    header += ("reason",) if stalled else ()
    rows = [
        (
            one["experiment_id"],
            one["state"],
            f"{one['progress']:.0%}",
            str(one["total"]),
            *([follow.waiting(one) or "-"] if waiting else []),
            follow.trouble(one) or "-",
            one["group"] or "-",
            tables.moment(one["created_at"]),
            one["experiment_name"],
            *([_stalled(one) or "-"] if stalled else []),
        )
        for one in found
    ]
    tables.show(header, rows, numbers=(2, 3))


def _stalled(status: Document) -> str | None:
    """Why an open experiment doesn't get on; why it ended is in `ems show`."""
    reason: str | None = status["reason"]
    return reason if status["finished_at"] is None else None


def details_of(details: Document) -> None:
    """What an experiment is and how it goes; `details` is its `ems.api.get` document."""
    follow.summary(details)
    facts = {
        "name": details["experiment_name"],
        "about": details["description"],
        "group": details["group"],
        "tags": ", ".join(details["tags"]),
        "round": details["round"] if details["round"] > 1 else None,
        "created": details["created_at"],
        "started": details["started_at"],
        "finished": details["finished_at"],
    }
    for name, value in facts.items():
        if value:
            # Further lines stand further in: none of them passes for one of ours.
            indented = str(value).replace("\n", "\n      ")
            shell.out(f"  {name}: {indented}")


def change(verb: str, document: Document) -> None:
    """What became of a change: its `ems.change.v1`."""
    name, state = document["experiment_id"], document["state"]
    if not document["changed"]:
        shell.out(f"{name}: nothing to {verb}, it is {state}")
    elif "retried" in document:
        shell.out(f"{name}: {document['retried']:,} jobs are tried again, it is {state}")
    else:
        shell.out(f"{name} is {state}")


async def points_of(ems: "client.EmsClient", details: Document) -> None:
    """The first points; the best ones where there is a goal. No more are held than are shown."""
    best = details["best"]
    sign = 0.0 if best is None else (1.0 if best["goal"] == "minimize" else -1.0)
    kept: list[tuple[float, int, Document]] = []
    total = 0
    async with contextlib.aclosing(ems.points(details["experiment_id"])) as points:
        async for point in points:
            total += 1
            mean = None if best is None else (point["metrics"].get(best["metric"]) or {}).get("mean")
            # As a heap whose first is the worst kept one.
            rank = (-sign * mean if mean is not None else float("-inf"), -point["point"], point)
            if len(kept) < _POINTS:
                heapq.heappush(kept, rank)
            else:
                heapq.heappushpop(kept, rank)
    parameters, metrics = list(details["parameters"]), list(details["metrics"])
    shown = [point for _, _, point in sorted(kept, reverse=True, key=lambda entry: entry[:2])]
    # As in `ems ls`: a column where there is something in it.
    trouble = any(follow.trouble(point) for point in shown)
    header = ("point", "replicates", *(["trouble"] if trouble else []), *tables.short(parameters), *metrics)
    rows = [
        (
            point["run_id_suffix"] or str(point["point"]),
            f"{follow.ended(point)}/{sum(point['counts'].values())}",
            *([follow.trouble(point) or "-"] if trouble else []),
            *(tables.value(point["params"][name]) if name in point["params"] else "-" for name in parameters),
            *(tables.mean(point["metrics"].get(name)) for name in metrics),
        )
        for point in shown
    ]
    shell.out("")
    tables.show(header, rows)
    if total > len(rows):
        shell.out(f"... and {total - len(rows):,} more points: ems export {details['experiment_id']}")
