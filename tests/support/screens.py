"""A terminal that shows what is printed: an emulator, so that tests see what a person would."""

import contextlib
import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from collections.abc import Iterator
from dataclasses import dataclass, field

import pyte
import pytest

from tests.support import commands

_LINES = 200


class _Tty(io.StringIO):
    def isatty(self) -> bool:
        return True


@dataclass
class Screen:
    """What a terminal of so many columns shows. `raw` is what it received."""

    columns: int
    tty: _Tty = field(default_factory=_Tty)

    @property
    def raw(self) -> str:
        return self.tty.getvalue()

    @property
    def emulator(self) -> pyte.Screen:
        screen = pyte.Screen(self.columns, _LINES)
        pyte.Stream(screen).feed(self.raw.replace("\n", "\r\n"))
        return screen

    @property
    def lines(self) -> list[str]:
        """The lines on the screen, without empty ones at the end. A line that is too long takes two."""
        return "\n".join(line.rstrip() for line in self.emulator.display).rstrip().split("\n")

    def colours(self, text: str) -> set[str]:
        """The colours of a text on the screen."""
        found: set[str] = set()
        emulator = self.emulator
        for row, line in enumerate(emulator.display):
            at = line.find(text)
            if at >= 0:
                found |= {emulator.buffer[row][column].fg for column in range(at, at + len(text))}
        return found


@contextlib.contextmanager
def showing(columns: int, monkeypatch: pytest.MonkeyPatch, *, term: str = "xterm-256color") -> Iterator[Screen]:
    """A terminal in place of standard output and standard error."""
    screen = Screen(columns)
    with monkeypatch.context() as patch:
        for name, value in (("COLUMNS", str(columns)), ("TERM", term), ("LINES", str(_LINES))):
            patch.setenv(name, value)
        for name in ("stdout", "stderr"):
            patch.setattr(sys, name, screen.tty)
        yield screen


def run(columns: int, env: dict[str, str], *arguments: str) -> Screen:
    """Runs `ems` on a terminal, and returns what it shows."""
    screen = Screen(columns)
    master, slave = pty.openpty()
    with contextlib.closing(os.fdopen(master, "rb", buffering=0)) as terminal:
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        env = {name: value for name, value in env.items() if name != "COLUMNS"} | {"TERM": "xterm"}
        command = [str(commands.SCRIPTS / "ems"), *arguments]
        with subprocess.Popen(command, stdout=slave, stdin=slave, stderr=slave, env=env) as process:
            os.close(slave)
            shown = b""
            with contextlib.suppress(OSError):  # how a terminal reports that its other side is closed
                while piece := terminal.read(65536):
                    shown += piece
        assert process.returncode == 0
    screen.tty.write(shown.decode().replace("\r\n", "\n"))
    return screen
