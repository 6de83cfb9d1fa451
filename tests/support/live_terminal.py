"""A command on a terminal of a given size: an emulator shows what a person would see, and keys can be pressed."""

import asyncio
import contextlib
import fcntl
import os
import pty
import signal
import struct
import termios
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import pyte

from tests.support import wait


class LiveTerminal:
    """A running command on a terminal."""

    def __init__(self, process: asyncio.subprocess.Process, main: int, terminal: int, size: tuple[int, int]) -> None:
        self.process = process
        self._main = main
        # Kept open, so that its modes can be read after the command has ended.
        self._terminal = terminal
        self.screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self.screen)
        self.received = b""

    @property
    def lines(self) -> list[str]:
        """What is on the screen, without spaces at the ends of lines."""
        return [line.rstrip() for line in self.screen.display]

    @property
    def text(self) -> str:
        return "\n".join(self.lines).rstrip()

    @property
    def modes(self) -> list[Any]:
        """The modes of the terminal, such as whether it echoes what is typed."""
        return termios.tcgetattr(self._terminal)[:4]

    def press(self, keys: str) -> None:
        """Types these keys."""
        os.write(self._main, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Gives the window another size."""
        self.screen.resize(rows, columns)
        _set_size(self._terminal, columns, rows)
        # The kernel tells the terminal's foreground processes; a command that is started here has no other terminal.
        self.process.send_signal(signal.SIGWINCH)

    async def shows(self, *texts: str) -> None:
        """Waits until all of these texts are on the screen."""
        try:
            await wait.until(lambda: all(text in self.text for text in texts), timeout=60)
        except AssertionError:
            raise AssertionError(f"{texts} are not on the screen:\n{self.text}") from None

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until the screen satisfies a condition."""
        await wait.until(condition, timeout=60, what="a change of the screen")

    def read(self) -> None:
        """Takes what the command has written."""
        with contextlib.suppress(BlockingIOError, OSError):
            while piece := os.read(self._main, 65536):
                self.received += piece
                self._stream.feed(piece)

    async def ended(self) -> int:
        """Waits for the end of the command; returns its exit code."""
        async with asyncio.timeout(60):
            code = await self.process.wait()
        self.read()
        return code


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextlib.asynccontextmanager
async def opened(
    command: Sequence[str], env: Mapping[str, str], columns: int = 80, rows: int = 24
) -> AsyncIterator[LiveTerminal]:
    """Runs a command on a terminal of this size, and kills it at the end if it hasn't ended."""
    main, terminal = pty.openpty()
    _set_size(terminal, columns, rows)
    os.set_blocking(main, False)
    process = await asyncio.create_subprocess_exec(
        "setsid", "--ctty", *command, stdin=terminal, stdout=terminal, stderr=terminal, env=dict(env)
    )
    shown = LiveTerminal(process, main, terminal, (columns, rows))
    loop = asyncio.get_running_loop()
    loop.add_reader(main, shown.read)
    try:
        yield shown
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        loop.remove_reader(main)
        os.close(main)
        os.close(terminal)
