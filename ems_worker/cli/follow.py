"""Follows an experiment to its end: a progress bar on a terminal, occasional lines on any other stderr."""

import asyncio
import contextlib
import dataclasses
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from ems_worker import errors
from ems_worker.cli import exits, failures, shell, statuses
from ems_worker.terminal import streams

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# Without a terminal: a line for every tenth of the jobs, and at least this often.
_STEP = 0.1
_HEARTBEAT_SECONDS = 10.0
# A narrower bar shows too little, a wider one shows no more. A time such as 10:01:59 takes eight columns.
_MIN_BAR, _GOOD_BAR, _MAX_BAR, _ELAPSED = 4, 10, 40, 8
# The bar is red only if the experiment has failed, and yellow if jobs have.
_STYLES = {"failed": "red", "cancelled": "yellow"}
_TROUBLED, _HEALTHY = "yellow", "green"


class Follower(Protocol):
    """Shows one status after another, inside `with`."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def show(self, status: Document) -> None: ...


def follower() -> Follower:
    """Returns a bar if stderr is a terminal that can draw one, else lines."""
    can_draw = sys.stderr.isatty() and os.environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    return BarFollower() if can_draw else LineFollower()


async def to_the_end(
    ems: "client.EmsClient", experiment_id: str, *, json: bool = False, each: bool = False, timeout: float | None = None
) -> exits.Exit:
    """Shows an experiment's progress until it ends, then a summary. Stops after `timeout` seconds.

    With `json`, the terminal status goes to stdout, and with `each` every status before it as well.
    """
    status: Document = {}
    try:
        async with asyncio.timeout(timeout), contextlib.aclosing(ems.watch(experiment_id)) as received:
            # A bar would wrap the documents at the terminal's width.
            with DocumentFollower() if json and each else follower() as shown:
                async for status in received:
                    shown.show(status)
    except TimeoutError:
        progress = f" ({statuses.line_with_reason(status)})" if status else ""
        shell.say(f"{experiment_id} did not end in time{progress}; {continues(experiment_id)}")
        return exits.Exit.TIMED_OUT
    except asyncio.CancelledError:
        shell.say(f"{experiment_id}: {continues(experiment_id)}")
        raise
    if not json:
        return await summary(ems, status)
    if not each:
        shell.out_json(status)
    return _outcome(status)


async def followed(ems: "client.EmsClient", experiment_id: str, goes_on: Callable[[Document], str]) -> Document:
    """The last status of an experiment, whose progress is shown. If a signal comes first, says what goes on."""
    status: Document = {}
    try:
        async with contextlib.aclosing(ems.watch(experiment_id)) as received:
            with follower() as shown:
                async for status in received:
                    shown.show(status)
    except asyncio.CancelledError:
        shell.say(goes_on(status))
        raise
    return status


async def summary(ems: "client.EmsClient", status: Document) -> exits.Exit:
    """Prints how an experiment ended, and why jobs did not complete; returns the exit code."""
    statuses.show_summary(status)
    # The outcome is known and printed. Missing reasons must not change the exit code.
    try:
        await failures.show(ems, status)
    except errors.EmsError as error:
        shell.say(f"the reasons why jobs did not complete are not available: {error}")
    return _outcome(status)


def _outcome(status: Document) -> exits.Exit:
    return exits.Exit.OK if status["state"] == "completed" else exits.Exit.FAILED


def continues(experiment_id: str | None) -> str:
    """What goes on when whoever watched one experiment, or all, has left."""
    if experiment_id is None:
        return "the experiments continue; follow them with: ems watch"
    return f"the experiment continues; follow it with: ems watch {experiment_id}"


class LineFollower:
    """Prints a status as a line: when the state or the reason changes, at each step of progress, and as a heartbeat."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, named: bool = False) -> None:
        """With `named`, each line begins with the experiment's id."""
        self._clock = clock
        self._named = named
        self._state: tuple[str, str | None] = ("", None)
        self._progress = 0.0
        self._printed_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def show(self, status: Document) -> None:
        now = self._clock()
        state = status["state"], statuses.reason(status)
        changed = state != self._state or status["progress"] >= self._progress + _STEP
        if changed or now >= self._printed_at + _HEARTBEAT_SECONDS:
            self._state, self._progress, self._printed_at = state, status["progress"], now
            name = f"{status['experiment_id']}: " if self._named else ""
            shell.say(f"{name}{statuses.line_with_reason(status)}")


class DocumentFollower:
    """Prints every status as a JSON document on stdout."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return

    def show(self, status: Document) -> None:
        shell.out_json(status)


@dataclasses.dataclass(frozen=True, slots=True)
class ProgressLine:
    """The parts of a status that fit on a line of the terminal.

    `name` is empty if the id has a line of its own, above. `bar` is the number of columns of the bar, 0 for no bar.
    `elapsed` is whether the elapsed time is shown.
    """

    name: str
    state: str
    bar: int
    count: str
    details: str
    elapsed: bool


def fit(width: int, status: Document) -> ProgressLine:
    """Chooses what fits into `width` columns, and leaves the bar at least ten of them if it can.

    The elapsed time is left out first, then the time left; then the id gets a line of its own. Then the bar gets
    smaller, problems and state are left out, and the bar. The count always stays.
    """
    count = f"{statuses.ended(status):,}/{status['total']:,}"
    name, state = status["experiment_id"], status["state"]
    problems = ", ".join(filter(None, (statuses.problems(status), statuses.waiting(status))))
    details = ", ".join(filter(None, (problems, statuses.time_left(status))))
    for bar, *line, elapsed in (
        (_GOOD_BAR, name, state, details, True),
        (_GOOD_BAR, name, state, details, False),
        (_GOOD_BAR, name, state, problems, False),
        (_GOOD_BAR, "", state, details, False),
        (_GOOD_BAR, "", state, problems, False),
        (_MIN_BAR, "", state, problems, False),
        (_MIN_BAR, "", state, "", False),
        (_MIN_BAR, "", "", "", False),
    ):
        shown_name, shown_state, shown_details = line
        taken = len(_joined(shown_name, shown_state, count, shown_details)) + (1 + _ELAPSED if elapsed else 0)
        free = width - taken - 1
        if free >= bar:
            return ProgressLine(shown_name, shown_state, min(free, _MAX_BAR), count, shown_details, elapsed)
    return ProgressLine("", "", 0, count, "", elapsed=False)


def style(status: Document) -> str:
    """The bar's colour."""
    return _STYLES.get(status["state"]) or (_TROUBLED if statuses.problems(status) else _HEALTHY)


def _joined(*parts: str) -> str:
    return " ".join(filter(None, parts))


class BarFollower:
    """Draws the latest status as a progress bar on a terminal, with each new reason on a line above it."""

    def __init__(self) -> None:
        import rich.progress
        import rich.table

        from ems_worker.terminal import drawing

        self._name, self._count, self._details = (
            rich.progress.TextColumn(
                f"{{task.fields[{name}]}}", markup=False, table_column=rich.table.Column(no_wrap=True)
            )
            for name in ("name", "count", "details")
        )
        self._bar, self._elapsed = rich.progress.BarColumn(), rich.progress.TimeElapsedColumn()
        self._progress = rich.progress.Progress(console=drawing.Console(sys.stderr), transient=True)
        self._reason: str | None = None
        self._named = False
        self._task = self._progress.add_task("", total=None, visible=False, name="", count="", details="")

    def __enter__(self) -> Self:
        self._progress.start()
        if self._progress.console.is_terminal:
            # Until the bar ends, what is printed goes above it, by streams of rich that turn escape codes into styles.
            sys.stdout, sys.stderr = map(streams.always_guarded, (sys.stdout, sys.stderr))
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def show(self, status: Document) -> None:
        # Computed for every status, as the terminal's width may change.
        line = fit(self._progress.console.width, status)
        if not line.name and not self._named:
            self._named = True
            self._progress.console.print(status["experiment_id"], soft_wrap=True)
        reason = statuses.reason(status)
        if reason not in (None, self._reason):
            # Above the bar, where it stays.
            self._progress.console.print(f"{status['experiment_id']}: {reason}")
        self._reason = reason
        self._bar.bar_width = line.bar
        self._bar.complete_style = self._bar.finished_style = style(status)
        head = _joined(line.name, line.state)
        columns = (
            (self._name, head),
            (self._bar, line.bar),
            (self._count, line.count),
            (self._details, line.details),
            (self._elapsed, line.elapsed),
        )
        self._progress.columns = tuple(column for column, shown in columns if shown)
        self._progress.update(
            self._task,
            completed=statuses.ended(status),
            total=status["total"],
            visible=True,
            name=head,
            count=line.count,
            details=line.details,
        )

    def refresh(self) -> None:
        """Draws at once, rather than ten times a second."""
        self._progress.refresh()
