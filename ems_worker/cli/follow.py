"""An experiment's way to its end on stderr: a moving bar on a terminal, a line now and then anywhere else."""

import asyncio
import contextlib
import dataclasses
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ems_worker import errors
from ems_worker.cli import exits, failures, shell
from ems_worker.core.lifecycle.experiment import ENDED_BUCKETS, Bucket
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# Off a terminal: a line for each tenth of the way, and a sign of life.
_STEP = 0.1
_LIFE_SECONDS = 10.0
# A bar of fewer columns tells nothing; of more, nothing more. A time like 10:01:59 takes eight.
_LEAST_BAR, _LONGEST_BAR, _ELAPSED = 8, 40, 8
# Less of an id than this many letters and `...` is none.
_LEAST_ID = 8
_ENDED = tuple(bucket.value for bucket in Bucket if bucket in ENDED_BUCKETS)
_TROUBLE = tuple(name for name in _ENDED if name != Bucket.COMPLETED)


class Follower(Protocol):
    """Shows one status after the other, inside `with`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, status: Document) -> None: ...


def follower() -> Follower:
    """The one that suits stderr."""
    return _Bar() if sys.stderr.isatty() else _Lines()


async def to_the_end(
    ems: "client.EmsClient", experiment_id: str, *, json: bool = False, each: bool = False, timeout: float | None = None
) -> exits.Exit:
    """Shows how an experiment goes until it has ended, then its summary; `timeout` seconds at most.

    With `json` the terminal status goes to stdout, with `each` every status before it too.
    """
    status: Document = {}
    try:
        async with asyncio.timeout(timeout), contextlib.aclosing(ems.watch(experiment_id)) as statuses:
            # A bar would break documents to the terminal's width.
            with _Documents() if json and each else follower() as shown:
                async for status in statuses:
                    shown.show(status)
    except TimeoutError:
        so_far = f" ({with_reason(status)})" if status else ""
        shell.say(
            f"{experiment_id} has not ended in time{so_far}; it goes on, follow it with: ems watch {experiment_id}"
        )
        return exits.Exit.TIMED_OUT
    except asyncio.CancelledError:
        shell.say(f"{experiment_id} goes on; follow it with: ems watch {experiment_id}")
        raise
    if not json:
        summary(status)
        # The end is known and told: that the reasons can't be had any more changes nothing about it.
        try:
            await failures.tell(ems, status)
        except errors.EmsError as silent:
            shell.say(f"why jobs did not complete can't be told now: {silent}")
    elif not each:
        shell.out_json(status)
    return exits.Exit.OK if status["state"] == "completed" else exits.Exit.FAILED


def summary(status: Document) -> None:
    """A status for people, on stdout: state, jobs, tracked metrics, the best point."""
    from ems_worker.cli import tables

    shell.out(f"{status['experiment_id']} {with_reason(status)}")
    for name, aggregate in status["metrics"].items():
        missing = f", {aggregate['missing']:,} missing" if aggregate["missing"] else ""
        if aggregate["n"]:
            shell.out(f"  {name}: {tables.mean(aggregate)} over {aggregate['n']:,} runs{missing}")
        elif missing:
            # Most often a name that the model doesn't know: easily overlooked among numbers.
            shell.out(f"  {name}: in none of {aggregate['missing']:,} results; does the simulation report it?")
        else:
            shell.out(f"  {name}: no results")
    if best := status["best"]:
        params = ", ".join(f"{name}={tables.value(value)}" for name, value in best["params"].items())
        shell.out(f"  best: point {best['point']} with {best['metric']} {tables.mean(best)}: {params}")


def ended(status: Document) -> int:
    """Jobs that have ended, one way or another."""
    return sum(status["counts"].get(name, 0) for name in _ENDED)


def trouble(status: Document) -> str:
    """The counts that nobody hopes for, as words."""
    counts = status["counts"]
    return ", ".join(f"{counts[name]:,} {name}" for name in _TROUBLE if counts.get(name))


def waiting(status: Document) -> str:
    """The jobs whose runs completed and whose metrics are still computed elsewhere, as words."""
    count = status["counts"].get(Bucket.AWAITING_METRICS.value)
    return f"{count:,} awaiting metrics" if count else ""


def duration(seconds: float) -> str:
    """As people say it: `4 s`, `3 min`, `2 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02d} min"


def line(status: Document) -> str:
    """A status in one line."""
    parts = [f"{status['state']}: {ended(status):,} of {status['total']:,} jobs ended ({status['progress']:.0%})"]
    parts += filter(None, (trouble(status), waiting(status)))
    if status["throughput"] and status["finished_at"] is None:
        parts.append(f"{status['throughput']:.3g} per second")
    if (status["eta_seconds"] or 0) >= 1 and status["finished_at"] is None:
        parts.append(f"about {duration(status['eta_seconds'])} left")
    return ", ".join(parts)


def with_reason(status: Document) -> str:
    """A status in one line, and why it is in its state or doesn't get on, where there is something to say."""
    return f"{line(status)} ({status['reason']})" if status["reason"] else line(status)


class _Lines:
    def __init__(self) -> None:
        self._state = ("", None)
        self._progress = 0.0
        self._said = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def show(self, status: Document) -> None:
        now = time.monotonic()
        state = status["state"], status["reason"]
        news = state != self._state or status["progress"] >= self._progress + _STEP
        if news or now >= self._said + _LIFE_SECONDS:
            self._state, self._progress, self._said = state, status["progress"], now
            shell.say(with_reason(status))


class _Documents:
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def show(self, status: Document) -> None:
        shell.out_json(status)


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What of a status is on a line of a terminal: `bar` columns of a bar (0: none), `elapsed`: the time so far."""

    name: str
    bar: int
    count: str
    words: str
    elapsed: bool


def layout(width: int, status: Document) -> Layout:
    """What fits: first the bar goes, then the times, then a part of the id, then the rest; the count stays."""
    count = f"{ended(status):,}/{status['total']:,}"
    name, state = status["experiment_id"], status["state"]
    left = f"{duration(status['eta_seconds'])} left" if (status["eta_seconds"] or 0) >= 1 else ""
    without_times = ", ".join(filter(None, (trouble(status), waiting(status))))
    words = ", ".join(filter(None, (without_times, left)))
    room = width - len(_joined(name, state, count, words)) - 1 - _ELAPSED
    if room >= 0:
        bar = min(room - 1, _LONGEST_BAR)
        return Layout(f"{name} {state}", bar if bar >= _LEAST_BAR else 0, count, words, elapsed=True)
    for rest in (without_times, ""):
        room = width - 1 - len(_joined(state, count, rest))
        if room >= min(len(name), _LEAST_ID + 3):
            short = name if len(name) <= room else f"{name[: room - 3]}..."
            return Layout(f"{short} {state}", 0, count, rest, elapsed=False)
    return Layout("", 0, count, "", elapsed=False)


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))


class _Bar:
    def __init__(self) -> None:
        import rich.progress
        import rich.table

        from ems_worker.terminal import drawing

        self._name, self._count, self._words = (
            rich.progress.TextColumn(
                f"{{task.fields[{name}]}}", markup=False, table_column=rich.table.Column(no_wrap=True)
            )
            for name in ("name", "count", "words")
        )
        self._bar, self._elapsed = rich.progress.BarColumn(), rich.progress.TimeElapsedColumn()
        self._progress = rich.progress.Progress(console=drawing.Console(sys.stderr), transient=True)
        self._reason: str | None = None
        self._task = self._progress.add_task("", total=None, visible=False, name="", count="", words="")

    def __enter__(self) -> Self:
        self._progress.start()
        if self._progress.console.is_terminal:
            # What is printed meanwhile goes above the bar, until its end by streams that take escapes for styles.
            sys.stdout, sys.stderr = map(streams.always_guarded, (sys.stdout, sys.stderr))
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, status: Document) -> None:
        if status["reason"] not in (None, self._reason):
            # Above the bar, where it stays.
            self._progress.console.print(f"{status['experiment_id']}: {status['reason']}")
        self._reason = status["reason"]
        # Looked at anew each time: terminals change their width.
        fits = layout(self._progress.console.width, status)
        self._bar.bar_width = fits.bar
        columns = (
            (self._name, fits.name),
            (self._bar, fits.bar),
            (self._count, fits.count),
            (self._words, fits.words),
            (self._elapsed, fits.elapsed),
        )
        self._progress.columns = tuple(column for column, wanted in columns if wanted)
        self._progress.update(
            self._task,
            completed=ended(status),
            total=status["total"],
            visible=True,
            name=fits.name,
            count=fits.count,
            words=fits.words,
        )
