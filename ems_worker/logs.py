"""The format of logs: structlog writes a line with an event name and fields for each event, to one stream."""

import contextlib
import io
import logging
from typing import TextIO, cast

import structlog

from ems_worker.terminal import streams, text


class _Lossy:
    """A stream that drops what it can't write: a full disk, or a reader that is gone, must not stop the process."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def cleaned(
    logger: structlog.typing.WrappedLogger, name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """A processor that removes terminal control sequences from an event.

    Renderers escape line ends in strings, and everything in values that aren't strings.
    """
    return {text.line(key): text.clean(value) if isinstance(value, str) else value for key, value in event.items()}


def _traceback(out: TextIO, error: structlog.typing.ExcInfo) -> None:
    lines = io.StringIO()
    structlog.dev.plain_traceback(lines, error)
    out.write(text.clean(lines.getvalue()))


def configure(level: str, form: str, stream: TextIO) -> None:
    """Sets the minimum level ("info") and the format ("json" or "console") of all log lines of the process."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if form == "console":
        # The guard of the stream would remove our colours. It isn't needed: fields from outside are cleaned.
        shared[-1] = cleaned
        last = structlog.dev.ConsoleRenderer(colors=stream.isatty(), exception_formatter=_traceback)
        stream = streams.trusted(stream)
    structlog.configure(
        processors=[*shared, last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", _Lossy(stream))),
        cache_logger_on_first_use=True,
    )
