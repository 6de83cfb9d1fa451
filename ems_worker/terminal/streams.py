"""Standard output and standard error: the only place that prints.

Messages for people are always cleaned, since a pipe often ends in a terminal too (`ems ls | head`). Data, such as that
of `ems export`, is written unchanged to files and pipes. On a terminal both streams are guarded: everything that is
written to them is cleaned, be it by a library, a warning, a traceback or as bytes.
"""

import codecs
import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping
from typing import Any, TextIO, cast

from ems_worker.terminal import text


class Guarded(io.TextIOBase):
    """A stream that cleans everything written to it. `trusted` is the stream behind it, for our own styles."""

    def __init__(self, trusted: TextIO) -> None:
        super().__init__()
        self.trusted = trusted
        if isinstance(trusted, io.TextIOWrapper):
            # On a terminal with an old encoding, print a question mark rather than fail.
            trusted.reconfigure(errors="replace")
        # Bytes take the same path as text.
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute, io a property
        return self.trusted.encoding or "utf-8"  # None for streams in memory

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        return self.trusted.errors

    def write(self, content: str) -> int:
        self.trusted.write(text.clean(content))
        return len(content)

    def flush(self) -> None:
        self.trusted.flush()

    def fileno(self) -> int:
        return self.trusted.fileno()

    def isatty(self) -> bool:
        return self.trusted.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing: the terminal stays open."""


class _Bytes(io.RawIOBase):
    """The byte stream of a guarded stream. It decodes to text, with replacement characters for invalid bytes."""

    def __init__(self, target: Guarded) -> None:
        super().__init__()
        self._target = target
        self._decoder = codecs.getincrementaldecoder(target.encoding)("replace")

    def write(self, data: Any) -> int:
        content = bytes(data)
        self._target.write(self._decoder.decode(content))
        return len(content)

    def flush(self) -> None:
        self._target.flush()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Does nothing: the terminal stays open."""


def guard() -> None:
    """Guards standard output and standard error for the rest of the process where they lead to a terminal."""
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)


def guarded(stream: TextIO | Guarded) -> TextIO:
    """The stream with a guard if it leads to a terminal; otherwise the stream itself, which writes data unchanged."""
    if isinstance(stream, Guarded) or not stream.isatty():
        return cast("TextIO", stream)
    return always_guarded(stream)


def always_guarded(stream: TextIO) -> TextIO:
    """The stream with a guard wherever it leads, for output that is only ever read by people."""
    return cast("TextIO", Guarded(stream))


def trusted(stream: TextIO | Guarded) -> TextIO:
    """The stream behind the guard, for text that was cleaned before our own styles were added."""
    return stream.trusted if isinstance(stream, Guarded) else stream


def say(message: str) -> None:
    """Prints a message for people on standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(text.clean(message), file=sys.stderr, flush=True)  # noqa: T201 - the only place that prints messages


def agreed(question: str) -> bool:
    """Asks a person a question on the terminal. Whether the answer is yes; no answer is no."""
    sys.stderr.write(f"{text.clean(question)} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def out(message: str) -> None:
    """Prints a message for people on standard output."""
    print(text.clean(message), flush=True)  # noqa: T201 - the only place that prints results


def out_json(document: Mapping[str, Any]) -> None:
    """Prints a document as one line of JSON and flushes it, since a reader may be waiting."""
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    print(text.escaped(line), flush=True)  # noqa: T201 - as above


def out_data(data: bytes) -> None:
    """Writes bytes to standard output unchanged."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def reopen() -> None:
    """Replaces standard streams that were closed (`<&-`, `>&-`) by streams that fail when they are used.

    Python sets closed standard streams to None and then prints messages for stderr to stdout. The next file to be
    opened would also get the free descriptor.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        # This one discards what is written: a failure could not be reported anywhere.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)
