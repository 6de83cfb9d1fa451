"""Records docs/images/run.svg: `make recording` runs the sweep of docs/tutorial.md on a terminal, and draws that."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path
from typing import Final

import pyte
import rich._export_format
import rich.console
import rich.style
import rich.terminal_theme
import rich.text

_HERE: Final = Path(__file__).parent
_TUTORIAL: Final = (_HERE / "tutorial.md").read_text()
_PICTURE: Final = _HERE / "images" / "run.svg"
_COLUMNS: Final = 80
_LINES: Final = 60
_THEME: Final = rich.terminal_theme.DIMMED_MONOKAI
# rich's own names fonts of a server on the internet.
_FORMAT: Final = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", rich._export_format.CONSOLE_SVG_FORMAT, flags=re.S)


def main() -> int:
    """Writes the picture."""
    script = re.search(r"^```python\n(# reef\.py\n.*?)^```$", _TUTORIAL, re.M | re.S)
    command = re.search(r"^\$ (ems run .*)$", _TUTORIAL, re.M)
    assert script is not None
    assert command is not None
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "reef.py").write_text(script[1])
        screen = _run(command[1], Path(directory))
    console = rich.console.Console(record=True, width=_COLUMNS, file=io.StringIO(), force_terminal=True)
    for line in _prompt(command[1]) + _drawn(screen):
        console.print(line)
    _PICTURE.write_text(console.export_svg(title="", theme=_THEME, code_format=_FORMAT, unique_id="run"))
    return 0


def _run(command: str, directory: Path) -> pyte.Screen:
    """The screen after a command."""
    screen = pyte.Screen(_COLUMNS, _LINES)
    stream = pyte.ByteStream(screen)
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _LINES, _COLUMNS, 0, 0))
    # Its platform is its own, whatever runs on this machine.
    env = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR", "NATS_URL")}
    env |= {"TERM": "xterm-256color", "XDG_RUNTIME_DIR": str(directory)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"
    with subprocess.Popen(  # noqa: S603 - the tutorial's own command
        ["/bin/sh", "-c", command], cwd=directory, env=env, stdin=slave, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        with contextlib.suppress(OSError):  # the end of the command
            while data := os.read(master, 65536):
                stream.feed(data)
    os.close(master)
    assert process.returncode == 0, "\n".join(screen.display)
    return screen


def _prompt(command: str) -> list[rich.text.Text]:
    """The command as it is typed, broken between words."""
    lines, line = [], "$"
    for word in re.findall(r"'[^']*'|\S+", command):
        if len(line) + 1 + len(word) > _COLUMNS - 2:
            lines.append(f"{line} \\")
            line = "   "
        line += f" {word}"
    return [rich.text.Text(text, style="bold") for text in (*lines, line)]


def _drawn(screen: pyte.Screen) -> list[rich.text.Text]:
    """The lines on the screen with their colours, without empty ones at the end."""
    last = max(index for index, line in enumerate(screen.display) if line.strip())
    drawn = []
    for row in range(last + 1):
        text = rich.text.Text()
        for column in range(_COLUMNS):
            cell = screen.buffer[row][column]
            color = {"default": None, "brown": "yellow"}.get(cell.fg, cell.fg)
            bright = color is not None and color.startswith("bright")
            name = f"bright_{color.removeprefix('bright')}" if bright and color is not None else color
            text.append(cell.data, rich.style.Style(color=name, bold=cell.bold))
        text.rstrip()
        drawn.append(text)
    return drawn


if __name__ == "__main__":
    sys.exit(main())
