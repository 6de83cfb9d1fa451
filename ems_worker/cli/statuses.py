"""An experiment's status (`ems.status.v1`) as text for people."""

from typing import Any

from ems_worker.cli import shell
from ems_worker.core.documents import changes
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
    parts = [f"{status['state']}: {ended(status):,} of {status['total']:,} jobs ended ({status['progress']:.0%})"]
    parts += filter(None, (problems(status), waiting(status)))
    if status["finished_at"] is None:
        if status["throughput"]:
            parts.append(f"{status['throughput']:.3g} per second")
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
    return f"{count:,} {'job' if count == 1 else 'jobs'} left out of metrics and ranking" if count else ""


def show_summary(status: Document) -> None:
    """Prints a status on stdout: state, jobs, tracked metrics, the best point."""
    from ems_worker.cli import tables

    shell.out(f"{status['experiment_id']} {line_with_reason(status)}")
    for name, aggregate in status["metrics"].items():
        missing = f", {aggregate['missing']:,} missing" if aggregate["missing"] else ""
        if aggregate["n"]:
            shell.out(f"  {name}: {tables.mean(aggregate)} over {aggregate['n']:,} runs{missing}")
        elif missing:
            # Usually a misspelt name, which is easily overlooked among numbers.
            shell.out(f"  {name}: in none of {aggregate['missing']:,} results; does the simulation report it?")
        else:
            shell.out(f"  {name}: no results")
    if best := status["best"]:
        params = ", ".join(f"{name}={tables.value(value)}" for name, value in best["params"].items())
        shell.out(f"  best: point {best['point']} with {best['metric']} {tables.mean(best)}: {params}")
