"""The live screen of `ems watch`: draws what is watched, and does what keys ask for."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import rich.text

from ems_worker import errors
from ems_worker.cli import changed, numbers, statuses
from ems_worker.cli.live import bars, layout, one, several, watched
from ems_worker.core.lifecycle.experiment import ENDED
from ems_worker.terminal import screen as terminals

if TYPE_CHECKING:
    from ems_worker import client

Document = dict[str, Any]

# At most so often; and at least every second, since elapsed times change.
_DRAW_SECONDS = 0.1
_TICK_SECONDS = 1.0
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Session:
    """A person who looks at one experiment, or at several and sometimes into one of them."""

    def __init__(self, ems: "client.EmsClient", *, experiment_id: str | None = None, group: str | None = None) -> None:
        self._ems = ems
        self._only = experiment_id
        self._group = group
        self._news = asyncio.Event()
        self.shown = watched.Screen(self._news.set)
        self._asked: str | None = None
        self._quit = False
        self._following: asyncio.Task[None] | None = None
        self._changing: asyncio.Task[None] | None = None

    async def run(self) -> Document | None:
        """Shows the screen until the only experiment has ended or the person quits; returns its last status."""
        with terminals.Screen(self.press, self._news.set) as screen:
            self._follow(self._only)
            try:
                while not self._quit:
                    self._draw(screen)
                    self._news.clear()
                    await self._anything()
                    if self._following is not None and self._following.done() and self._is_over(self._following):
                        break
            finally:
                await self._stop(self._following, self._changing)
        return None if self.shown.experiment is None else self.shown.experiment.status

    def _is_over(self, following: asyncio.Task[None]) -> bool:
        """Whether the screen ends, because what was followed has ended. What was opened from the list stays on it."""
        self._following = None
        try:
            following.result()
        except ExceptionGroup as failed:
            if self._only is not None:
                raise failed.exceptions[0] from None
            problem: Exception = failed.exceptions[0]
        except errors.EmsError as error:
            if self._only is not None:
                raise
            problem = error
        else:
            return self._only is not None
        if not isinstance(problem, errors.EmsError):
            raise problem
        self._follow(None)
        self.shown.message = f"error: {problem}"
        return False

    async def _anything(self) -> None:
        """Returns when there is something to draw, but not too soon."""
        waiting: list[asyncio.Future[Any]] = [asyncio.ensure_future(self._news.wait())]
        if self._following is not None:
            waiting.append(self._following)
        await asyncio.wait(waiting, timeout=_TICK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        waiting[0].cancel()
        await asyncio.sleep(_DRAW_SECONDS if self._following is None or not self._following.done() else 0)

    def _follow(self, experiment_id: str | None) -> None:
        """Shows this experiment from now on, or the list."""
        self.shown.experiment, self.shown.message, self.shown.trouble = None, "", ""
        if self._following is not None:
            self._following.cancel()
        work = (
            watched.follow_all(self._ems, self.shown, self._group)
            if experiment_id is None
            else watched.follow_one(self._ems, self.shown, experiment_id, stays=self._only is None)
        )
        self._following = asyncio.create_task(work)

    async def _stop(self, *tasks: asyncio.Task[None] | None) -> None:
        for task in tasks:
            if task is not None and not task.done():
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await task

    def _draw(self, screen: terminals.Screen) -> None:
        width, height = screen.size
        now, utf8 = datetime.now(UTC), bars.is_utf8(screen.encoding)
        shown, room = self.shown, height - 2
        if shown.experiment is not None:
            lines = one.lines(shown.experiment, width, room, now=now, utf8=utf8)
            keys = one.keys(shown.experiment.status)
        elif self._only is not None:
            lines, keys = [layout.line(self._only, "bold")], one.keys(None)
        else:
            self._choose(0)
            lines = several.lines(shown.listed, shown.chosen, width, room, utf8=utf8)
            keys = several.KEYS
        lines = [*lines, *[rich.text.Text("")] * max(0, room - len(lines))][: max(0, room)]
        message = layout.line(
            shown.question or shown.trouble or shown.message, "bold yellow" if shown.question else "yellow"
        )
        screen.draw([*lines, message, layout.line("y yes   n no" if shown.question else keys, "bright_black")])

    def press(self, key: str) -> None:
        """Does what a key asks for."""
        self._news.set()
        if self.shown.question:
            self.shown.question, asked = "", self._asked
            if key in ("y", "Y") and asked is not None:
                self._change(asked, self._ems.cancel(asked), "cancelling")
            return
        status = self._status()
        if key in ("q", "Q"):
            self._quit = self._only is not None or self.shown.experiment is None
            if not self._quit:
                self._follow(None)
        elif key == "escape" and self._only is None and self.shown.experiment is not None:
            self._follow(None)
        elif key in ("up", "k", "down", "j"):
            self._choose(-1 if key in ("up", "k") else 1)
        elif key == "enter" and self.shown.experiment is None and self._only is None and self.shown.chosen:
            self._follow(self.shown.chosen)
        elif key in ("p", "c") and status is not None:
            self._steer(key, status)

    def _steer(self, key: str, status: Document) -> None:
        """Pauses or resumes an experiment, or asks whether to cancel it."""
        name = status["experiment_id"]
        if status["state"] in ENDED:
            self.shown.message = f"{name} has ended"
        elif key == "c":
            left = status["total"] - statuses.ended(status)
            self._asked = name
            self.shown.question = f"cancel {name} and its {numbers.counted(left, 'open job')}?"
        elif status.get("pauses"):
            self._change(name, self._ems.resume(name), "resuming")
        else:
            self._change(name, self._ems.pause(name), "pausing")

    def _change(self, name: str, request: Awaitable[Document], doing: str) -> None:
        """Sends a request; the screen goes on meanwhile, and then shows what happened."""

        async def change() -> None:
            try:
                self.shown.tell(changed.sentence(await request))
            except errors.EmsError as error:
                self.shown.tell(f"error: {error}")

        self.shown.message = f"{doing} {name} ..."
        self._changing = asyncio.create_task(change())

    def _status(self) -> Document | None:
        """The status of the experiment that keys are about."""
        if self.shown.experiment is not None:
            return self.shown.experiment.status
        return next((one for one in self.shown.listed if one["experiment_id"] == self.shown.chosen), None)

    def _choose(self, step: int) -> None:
        """Moves the choice in the list; to the first if what was chosen is no longer there."""
        names = [status["experiment_id"] for status in self.shown.listed]
        if names:
            at = names.index(self.shown.chosen) if self.shown.chosen in names else -step
            self.shown.chosen = names[max(0, min(at + step, len(names) - 1))]


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Signals that end a program cancel this task instead, so that the terminal is put back and what goes on is said.

    They end the program afterwards.
    """
    loop, task, caught = asyncio.get_running_loop(), asyncio.current_task(), list[int]()
    assert task is not None

    def end(number: int) -> None:
        caught.append(number)
        task.cancel()

    for number in _ENDING:
        loop.add_signal_handler(number, end, number)
    try:
        yield
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)
        if caught:
            signal.signal(caught[0], signal.SIG_DFL)
            signal.raise_signal(caught[0])
