"""Draws an experiment: its bar, what runs now, why jobs failed, the best points."""

from datetime import datetime
from typing import Any

import rich.text

from ems_worker.cli import jobs, numbers, statuses, tables
from ems_worker.cli.live import bars, layout, watched
from ems_worker.cli.live.layout import Section
from ems_worker.core.lifecycle import interval
from ems_worker.core.lifecycle.experiment import ENDED

Document = dict[str, Any]

_STATE_STYLES = {"running": "green", "completed": "green", "paused": "yellow", "failed": "red", "cancelled": "yellow"}
_KEYS = (("p", "pause"), ("c", "cancel"), ("q", "quit"))
_MAX_BAR = 76


def lines(shown: watched.Experiment, width: int, height: int, *, now: datetime, utf8: bool) -> list[rich.text.Text]:
    """The experiment on at most `height` lines of `width` columns, without the line of keys."""
    top = head(shown.status, width, now=now, utf8=utf8)
    parts = [
        part for part in (_running(shown, width, now), _reasons(shown, width), _best(shown, width)) if part is not None
    ]
    return [*top, *layout.sections(parts, max(0, height - len(top)))][:height]


def head(status: Document, width: int, *, now: datetime, utf8: bool) -> list[rich.text.Text]:
    """Id, state, bar and numbers."""
    counts = status["counts"]
    drawn = [
        titled(status, width, now),
        bars.bar(counts, min(width, _MAX_BAR), utf8=utf8),
        *layout.flowed(bars.legend(counts, utf8=utf8), width),
        *layout.flowed([layout.line(part) for part in _numbers(status)], width, " "),
    ]
    if why := statuses.reason(status):
        drawn.append(layout.line(why, "yellow"))
    return drawn


def titled(status: Document, width: int, now: datetime) -> rich.text.Text:
    """The id, the state, how long the experiment has run, its name; what doesn't fit is left out."""
    title = layout.line(status["experiment_id"], "bold")
    state = layout.line(status["state"], _STATE_STYLES.get(status["state"], ""))
    again = [layout.line(f"round {status['round']}")] if status.get("round", 1) > 1 else []
    since = jobs.took(status, now)
    named = (
        [layout.line(status["experiment_name"], "bright_black")]
        if status["experiment_name"] != status["experiment_id"]
        else []
    )
    for part in (state, *again, *([layout.line(since)] if since else []), *named):
        if title.cell_len + 2 + part.cell_len <= width:
            title.append("  ").append_text(part)
    return title


def _numbers(status: Document) -> list[str]:
    parts = [f"{statuses.ended(status):,} of {status['total']:,} jobs ended ({status['progress']:.0%})"]
    if status["finished_at"] is None and status["throughput"]:
        parts.append(pace(status["throughput"]))
    if status["finished_at"] is None and (left := statuses.time_left(status)):
        parts.append(f"about {left}")
    return [f"{part}," for part in parts[:-1]] + parts[-1:]


def pace(throughput: float) -> str:
    """Jobs per second, or per minute or hour if they take longer."""
    for unit in ("second", "minute"):
        if throughput >= 1:
            return f"{throughput:.3g} per {unit}"
        throughput *= 60
    return f"{throughput:.3g} per hour"


def _running(shown: watched.Experiment, width: int, now: datetime) -> Section | None:
    if shown.status["state"] in ENDED:
        return None
    rows = []
    tell = any(jobs.progress(job) is not None for job in shown.running)
    for job in shown.running:
        part = jobs.progress(job)
        done = ["-" if part is None else f"{part:.0%}"] if tell else []
        rows.append((job["simulation_id"], jobs.took(job, now) or "-", *done, _at(job)))
    header, drawn = layout.table(
        ("run", "for", *(["done"] if tell else []), "on"), rows, width, right=(1, 2)[: 1 + tell]
    )
    number = shown.status["counts"].get("running", 0)
    return Section(_title("running now", f"{number:,}"), drawn, header, more=max(0, number - len(rows)))


def _at(job: Document) -> str:
    host, slot = job.get("host"), job.get("slot")
    return f"{host or '-'}{'' if slot is None else f', slot {slot}'}"


def _reasons(shown: watched.Experiment, width: int) -> Section:
    rows = [(f"{reason.jobs:,}", reason.example, reason.text) for reason in shown.reasons]
    header, drawn = layout.table(("jobs", "for example", "why"), rows, width, right=(0,), cut=True)
    return Section(_title("why jobs did not complete"), drawn, header)


def _best(shown: watched.Experiment, width: int) -> Section | None:
    best = shown.status["best"]
    if best is None:
        return None
    points = shown.best or [{**best, "metrics": {best["metric"]: best}, "run_id_suffix": None}]
    parameters = [name for name in shown.details["parameters"] if any(name in point["params"] for point in points)]
    rows = []
    aggregates = [point["metrics"][best["metric"]] for point in points]
    means = numbers.column([aggregate["mean"] for aggregate in aggregates])
    for point, aggregate, mean in zip(points, aggregates, means, strict=True):
        half = interval.half_width(aggregate["n"], aggregate["std"])
        rows.append(
            (
                point["run_id_suffix"] or str(point["point"]),
                mean,
                "" if half is None else f"± {half:.3g}",
                str(aggregate["n"]),
                *(tables.value(point["params"][name]) if name in point["params"] else "-" for name in parameters),
            )
        )
    header, drawn = layout.table(("point", "mean", "95 %", "n", *tables.short(parameters)), rows, width, right=(1, 3))
    order = "lowest first" if best["goal"] == "minimize" else "highest first"
    return Section(_title("best points", f"by {best['metric']}, {order}"), drawn, header)


def _title(name: str, more: str = "") -> rich.text.Text:
    title = layout.line(name, "bold")
    return title.append(f"  {more}", "bright_black") if more else title


def keys(status: Document | None) -> str:
    """The line of keys."""
    paused = status is not None and bool(status.get("pauses"))
    return "   ".join(f"{key} {'resume' if paused and key == 'p' else word}" for key, word in _KEYS)
