"""The format of a process's log."""

import errno
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from ems_worker import logs
from ems_worker.terminal import streams
from tests.support import hostile_words


class Disk(io.StringIO):
    """A file on a disk that may be full."""

    full = False

    def write(self, text: str) -> int:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(text)

    def flush(self) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def disk() -> Iterator[Disk]:
    """The stream of the log; the fixture restores the configuration of the process."""
    before = structlog.get_config()
    stream = Disk()
    logs.configure("info", "json", stream)
    yield stream
    structlog.configure(**before)


def test_a_line_has_its_event_and_fields(disk: Disk) -> None:
    """Each event is a JSON object on a line, and events below the level are left out."""
    structlog.get_logger().bind(part="x").info("some.event", count=3)
    structlog.get_logger().debug("too.much")
    [line] = disk.getvalue().splitlines()
    assert {"event": "some.event", "part": "x", "count": 3, "level": "info"}.items() <= json.loads(line).items()


def test_a_log_that_can_not_be_written_raises_nothing(disk: Disk) -> None:
    """Lines that can't be written are lost, and later lines are written."""
    disk.full = True
    structlog.get_logger().error("lost")
    disk.full = False
    structlog.get_logger().info("kept")
    [line] = disk.getvalue().splitlines()
    assert json.loads(line)["event"] == "kept"


class Terminal(io.StringIO):
    """A stream that reports to be a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("guarded", [True, False])
def test_a_log_for_people_has_no_foreign_control_sequences(disk: Disk, guarded: bool) -> None:
    """Names, values and exceptions are shown, each event on one line, with our own colours on a terminal."""
    terminal: Disk | Terminal = Terminal() if guarded else disk
    logs.configure("info", "console", streams.guarded(terminal))
    log = structlog.get_logger()
    log.warning("some.event", reason=f"{hostile_words.ALL}\nsome.other", named=[hostile_words.ALL])
    log.warning("some.event", **{hostile_words.ALL: 1})
    try:
        raise ValueError(hostile_words.ALL)
    except ValueError:
        log.exception("some.failure")
    shown = terminal.getvalue()
    assert shown.count(hostile_words.WITNESS) == 4 * hostile_words.ALL.count(hostile_words.WITNESS)
    assert ("\x1b[" in shown) is guarded
    assert not hostile_words.dangerous_characters(hostile_words.without_ours(shown))
    assert len([line for line in shown.splitlines() if "some." in line]) == 3


def test_a_log_for_programs_is_escaped(disk: Disk) -> None:
    """Showing the file on a terminal is safe, and a reader of JSON gets the original value."""
    structlog.get_logger().info("some.event", reason=hostile_words.ALL)
    shown = disk.getvalue()
    assert not hostile_words.dangerous_characters(shown)
    assert json.loads(shown)["reason"] == hostile_words.ALL
