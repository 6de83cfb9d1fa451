"""An experiment's status (`ems.status.v1`) as text for people."""

from typing import Any

from ems_worker.cli import numbers, shell
from ems_worker.core.documents import changes, headings
from ems_worker.core.lifecycle.experiment import PauseOwner
from ems_worker.core.lifecycle.tally import ENDED_BUCKETS, Bucket

Document = dict[str, Any]

_ENDED = tuple(bucket.value for bucket in Bucket if bucket in ENDED_BUCKETS)
# Those that this version knows.
_OWNERS = frozenset(PauseOwner)
_UNSUCCESSFUL = tuple(name for name in _ENDED if name != Bucket.COMPLETED)


def ended(status: Document) -> int:
    """The number of jobs that have ended in any state."""
    return sum(status["counts"].get(name, 0) for name in _ENDED)


def problems(status: Document) -> str:
    """The counts of jobs that ended in any state but completed, such as `3 failed, 1 lost`."""
    counts = status["counts"]
    return ", ".join(f"{counts[name]:,} {name}" for name in _UNSUCCESSFUL if counts.get(name))


def waiting(status: Document) -> str:
    """The count of jobs whose runs completed and whose metrics are still being computed elsewhere."""
    count = status["counts"].get(Bucket.AWAITING_METRICS.value)
    return f"{count:,} awaiting metrics" if count else ""


def duration(seconds: float) -> str:
    """Rounds a duration for people: `4 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def time_left(status: Document) -> str:
    """The estimated time left, such as `3 min left`; empty if it is unknown or less than a second."""
    seconds = status["eta_seconds"] or 0
    return f"{duration(seconds)} left" if seconds >= 1 else ""


def line(status: Document) -> str:
    """A status in one line."""
    of = numbers.counted(status["total"], "job")
    parts = [f"{status['state']}: {ended(status):,} of {of} ended ({status['progress']:.0%})"]
    parts += filter(None, (problems(status), waiting(status)))
    if status["finished_at"] is None:
        if status["throughput"]:
            parts.append(f"{numbers.rate(status['throughput'])} per second")
        if left := time_left(status):
            parts.append(f"about {left}")
    return ", ".join(parts)


def line_with_reason(status: Document) -> str:
    """A status in one line, with the reason for its state or for its lack of progress if there is one."""
    why = reason(status)
    return f"{line(status)} ({why})" if why else line(status)


def reason(status: Document) -> str | None:
    """Why an experiment is in its state or makes no progress: the status' own reason, else who pauses it."""
    own: str | None = status["reason"]
    return own or changes.pause_reason(PauseOwner(owner) for owner in status.get("pauses", []) if owner in _OWNERS)


def excluded(status: Document) -> str:
    """The count of jobs that are left out of statistics and ranking."""
    count = status.get("excluded") or 0
    return f"{numbers.counted(count, 'job')} left out of metrics and ranking" if count else ""


def show_summary(status: Document) -> None:
    """Prints a status on stdout: state, jobs, tracked metrics, the best point."""
    from ems_worker.cli import tables

    shell.out(f"{status['experiment_id']} {line_with_reason(status)}")
    texts = headings.titles(list(status["metrics"]), status.get("headings", {}).get("metrics", {}))
    for (name, aggregate), title in zip(status["metrics"].items(), texts, strict=True):
        missing = f", {aggregate['missing']:,} missing" if aggregate["missing"] else ""
        if aggregate["n"]:
            over = numbers.counted(aggregate["n"], "run")
            shell.out(f"  {title}: {tables.mean(aggregate)} over {over}{missing}")
        elif missing:
            # Usually a misspelt name, which is easily overlooked among numbers.
            of = numbers.counted(aggregate["missing"], "result")
            shell.out(f"  {name}: in none of {of}; does the simulation report it?")
        else:
            shell.out(f"  {title}: no results")
    if best := status["best"]:
        params = ", ".join(f"{name}={tables.value(value)}" for name, value in best["params"].items())
        mean = f"{best['metric']} {tables.mean(best)} (n={best['n']:,})"
        tables.paragraph(f"  best: point {best['point']} with {mean}: {params}", 6)
