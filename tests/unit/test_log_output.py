"""The output of other programs is unchanged in files and pipes, and plain lines on a terminal."""

import io
from typing import TextIO

import pytest

from ems_worker.terminal import streams
from ems_worker.terminal.logs import Log


class Terminal(io.TextIOWrapper):
    """A stream in memory that says it is a terminal, or not."""

    def __init__(self, *, terminal: bool) -> None:
        self.bytes = io.BytesIO()
        self._terminal = terminal
        super().__init__(self.bytes, encoding="utf-8", newline="")

    def isatty(self) -> bool:
        return self._terminal


def written(monkeypatch: pytest.MonkeyPatch, parts: list[bytes], *, terminal: bool) -> bytes:
    """What arrives at the stream."""
    stream = Terminal(terminal=terminal)
    guarded: TextIO = streams.guarded(stream)
    monkeypatch.setattr("sys.stdout", guarded)
    log = Log()
    for part in parts:
        log.write(part)
    log.close()
    guarded.flush()
    return stream.bytes.getvalue()


HOSTILE = b"\x1b[32mgreen\x1b[0m\r\n 10%\r100%\n\x1b]0;title\x07done \xff\x07"


def test_a_file_gets_every_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours too: `ems logs RUN > file` is the file that the orchestrator has."""
    assert written(monkeypatch, [HOSTILE], terminal=False) == HOSTILE


def test_a_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colours and titles are left out, each state of a progress bar is a line, and the last line is ended."""
    shown = written(monkeypatch, [HOSTILE], terminal=True).decode()
    assert shown == "green\n 10%\n100%\ndone \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}\n"


def test_parts_may_end_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sequence, a character or a line's end that comes in two parts is shown as if it came in one."""
    text = HOSTILE + "魚 \x1b[1;31mred\x1b[m\r\n".encode()
    whole = written(monkeypatch, [text], terminal=True)
    assert written(monkeypatch, [text[at : at + 1] for at in range(len(text))], terminal=True) == whole


def test_a_sequence_without_an_end_is_not_held_back_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it is shown."""
    shown = written(monkeypatch, [b"\x1b]" + b"x" * 1000, b"after\n"], terminal=True).decode()
    assert shown == "\N{REPLACEMENT CHARACTER}]" + "x" * 1000 + "after\n"
