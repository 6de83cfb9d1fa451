"""The whole terminal: a picture that changes, and keys that are read one by one.

Whatever ends the `with`, the terminal is as it was before. While the program is suspended (Ctrl-Z) it is too.
"""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import rich.text

from ems_worker.terminal import drawing, streams

_ENTER = "\x1b[?1049h\x1b[?25l"
_LEAVE = "\x1b[?25h\x1b[?1049l"
_READ = 64
_NAMED = {
    "\x1b[A": "up",
    "\x1b[B": "down",
    "\x1bOA": "up",
    "\x1bOB": "down",
    "\r": "enter",
    "\n": "enter",
    "\x1b": "escape",
}
# A sequence of a key such as an arrow, or a character.
_KEY = re.compile(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O.)|.", re.S)


def usable() -> bool:
    """Whether standard output is a terminal on which a picture can change, and we are on a system that has signals."""
    dumb = os.environ.get("TERM", "") in ("", "dumb", "unknown")
    return os.name == "posix" and sys.stdout.isatty() and not dumb


class Screen:
    """Standard output as a whole screen. `pressed` gets the name of each key; `redraw` is called when the size changes.

    Used inside a running event loop.
    """

    def __init__(self, pressed: Callable[[str], None], redraw: Callable[[], None]) -> None:
        self._pressed = pressed
        self._redraw = redraw
        self._out = streams.trusted(sys.stdout)
        self._console = drawing.Console(sys.stdout)
        self._keyboard = sys.stdin.fileno() if sys.stdin.isatty() else None
        self._before: list[Any] | None = None
        self._shown = False

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines of the window as it is now, whatever COLUMNS says."""
        with contextlib.suppress(OSError):
            columns, rows = os.get_terminal_size(self._out.fileno())
            if columns and rows:
                return columns, rows
        return self._console.width, self._console.height

    @property
    def encoding(self) -> str | None:
        return self._out.encoding

    def __enter__(self) -> Self:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGWINCH, self._redraw)
        loop.add_signal_handler(signal.SIGTSTP, self._suspend)
        if self._keyboard is not None:
            loop.add_reader(self._keyboard, self._read)
        self._take()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        loop = asyncio.get_running_loop()
        if self._keyboard is not None:
            loop.remove_reader(self._keyboard)
        for number in (signal.SIGWINCH, signal.SIGTSTP):
            loop.remove_signal_handler(number)
        self._give_back()

    def draw(self, lines: Sequence[rich.text.Text]) -> None:
        """Shows these lines in place of what was shown before."""
        width, height = self.size
        parts = []
        for number, line in enumerate(lines[:height], 1):
            with self._console.capture() as captured:
                self._console.print(line, end="", no_wrap=True, overflow="ellipsis", width=width)
            parts.append(f"\x1b[{number};1H{captured.get()}\x1b[K")
        self._write("".join(parts) + ("\x1b[J" if len(lines) < height else ""))

    def _take(self) -> None:
        import termios

        if self._keyboard is not None:
            with contextlib.suppress(termios.error):
                self._before = termios.tcgetattr(self._keyboard)
                now = termios.tcgetattr(self._keyboard)
                now[3] &= ~(termios.ICANON | termios.ECHO)
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, now)
        self._shown = True
        self._write(_ENTER)

    def _give_back(self) -> None:
        import termios

        if self._shown:
            self._shown = False
            # The terminal may be gone, which may be why we end.
            with contextlib.suppress(OSError):
                self._write(_LEAVE)
        if self._keyboard is not None and self._before is not None:
            with contextlib.suppress(termios.error):
                # What was typed and not read is dropped: it was meant for us, not for the shell.
                termios.tcsetattr(self._keyboard, termios.TCSAFLUSH, self._before)

    def _suspend(self) -> None:
        self._give_back()
        os.kill(os.getpid(), signal.SIGSTOP)
        self._take()
        self._redraw()

    def _read(self) -> None:
        assert self._keyboard is not None
        try:
            data = os.read(self._keyboard, _READ)
        except OSError:
            data = b""
        if not data:
            # The terminal is gone: without keys the picture still changes, until the signal comes that says so.
            asyncio.get_running_loop().remove_reader(self._keyboard)
        for key in keys(data.decode(errors="replace")):
            self._pressed(key)

    def _write(self, drawn: str) -> None:
        self._out.write(drawn)
        self._out.flush()


def keys(typed: str) -> list[str]:
    """The names of the keys: `up`, `down`, `enter`, `escape`, or the character. Other sequences are dropped."""
    names = []
    for key in _KEY.findall(typed):
        if key in _NAMED:
            names.append(_NAMED[key])
        elif len(key) == 1:
            names.append(key)
    return names
