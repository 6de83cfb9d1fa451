"""The log of a process."""

import errno
import io
import json
from collections.abc import Iterator

import pytest
import structlog

from ems_worker import logs


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
    """Where the log goes; the settings of the process are put back."""
    before = structlog.get_config()
    one = Disk()
    logs.configure("info", "json", one)
    yield one
    structlog.configure(**before)


def test_a_line_has_its_event_and_fields(disk: Disk) -> None:
    """One JSON object each; what is below the level isn't there."""
    structlog.get_logger().bind(part="x").info("some.event", count=3)
    structlog.get_logger().debug("too.much")
    [line] = disk.getvalue().splitlines()
    assert {"event": "some.event", "part": "x", "count": 3, "level": "info"}.items() <= json.loads(line).items()


def test_a_log_that_can_not_be_written_stops_nobody(disk: Disk) -> None:
    """Its lines are lost; later ones are there."""
    disk.full = True
    structlog.get_logger().error("lost")
    disk.full = False
    structlog.get_logger().info("kept")
    [line] = disk.getvalue().splitlines()
    assert json.loads(line)["event"] == "kept"
