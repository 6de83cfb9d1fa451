"""How logs look: structlog, one event name a line with its fields, to one stream."""

import contextlib
import logging
from typing import TextIO, cast

import structlog


class _Lossy:
    """A stream that drops what it can't write: a log on a full disk, or whose reader is gone, must end nothing."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure(level: str, form: str, stream: TextIO) -> None:
    """Sets the least level ("info") and the form ("json" or "console") of every log line of the process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        shared.pop()
        last = structlog.dev.ConsoleRenderer(colors=stream.isatty())
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lossy(stream))),
        cache_logger_on_first_use=True,
    )
