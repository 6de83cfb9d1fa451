"""Standard output and standard error: the only place that prints.

Words for people are cleaned wherever they go, since a pipe often ends in a terminal too (`ems ls | head`). Data, as of
`ems export`, is left as it is in a file or a pipe. And on a terminal both streams are guarded: whatever is written to
them, by a library, a warning, a traceback or as bytes, is cleaned on its way.
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
    """A stream that cleans what goes to a terminal. `trusted` is the stream itself, for styles of our own."""

    def __init__(self, trusted: TextIO) -> None:
        super().__init__()
        self.trusted = trusted
        if isinstance(trusted, io.TextIOWrapper):
            # A terminal of an old encoding shows a question mark; it is no reason to fail.
            trusted.reconfigure(errors="replace")
        # What is written as bytes, and what asks for a stream of bytes, comes by the same way.
        self.buffer = _Bytes(self)

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute, io a property
        return self.trusted.encoding or "utf-8"  # of what isn't on an operating system's stream there is none

    @property
    def errors(self) -> str | None:  # type: ignore[override]  # as above
        return self.trusted.errors

    def write(self, words: str) -> int:
        self.trusted.write(text.clean(words))
        return len(words)

    def flush(self) -> None:
        self.trusted.flush()

    def fileno(self) -> int:
        return self.trusted.fileno()

    def isatty(self) -> bool:
        return self.trusted.isatty()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """The terminal is not ours to close."""


class _Bytes(io.RawIOBase):
    """Bytes for a guarded stream: they are text in its encoding, or shown as what they aren't."""

    def __init__(self, target: Guarded) -> None:
        super().__init__()
        self._target = target
        self._decoder = codecs.getincrementaldecoder(target.encoding)("replace")

    def write(self, data: Any) -> int:
        given = bytes(data)
        self._target.write(self._decoder.decode(given))
        return len(given)

    def flush(self) -> None:
        self._target.flush()

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """As of the stream."""


def guard() -> None:
    """From now on nothing gets to a terminal by standard output or standard error that `text.clean` would replace."""
    sys.stdout, sys.stderr = guarded(sys.stdout), guarded(sys.stderr)


def guarded(stream: TextIO | Guarded) -> TextIO:
    """The stream itself where it leads to no terminal: what is in a file or a pipe stays as it was written."""
    if isinstance(stream, Guarded) or not stream.isatty():
        return cast("TextIO", stream)
    return always_guarded(stream)


def always_guarded(stream: TextIO) -> TextIO:
    """The stream with a guard whatever it leads to: for one that draws what it gets."""
    return cast("TextIO", Guarded(stream))


def trusted(stream: TextIO | Guarded) -> TextIO:
    """The stream behind the guard: for what was cleaned before it got styles of our own."""
    return stream.trusted if isinstance(stream, Guarded) else stream


def say(words: str) -> None:
    """A line for people, on standard error."""
    with contextlib.suppress(BrokenPipeError):
        print(text.clean(words), file=sys.stderr, flush=True)  # noqa: T201 - the one place that speaks


def out(words: str) -> None:
    """A line for people, on standard output."""
    print(text.clean(words), flush=True)  # noqa: T201 - the one place that prints


def out_json(document: Mapping[str, Any]) -> None:
    """One document as one line, at once: readers may be waiting for it."""
    line = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    print(text.escaped(line), flush=True)  # noqa: T201 - as above


def out_data(data: bytes) -> None:
    """Bytes as they are, on standard output."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)


def reopen() -> None:
    """Standard streams that were closed (`<&-`, `>&-`) are there again, and fail like a closed one when they are used.

    Python has None in their place, and prints what is for stderr to stdout; the next file that is opened would get
    their number.
    """
    if sys.stdin is None:
        sys.stdin = os.fdopen(os.open(os.devnull, os.O_WRONLY), encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(os.open(os.devnull, os.O_RDONLY), "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        # Nobody could be told that nobody can be told.
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8", closefd=False)
