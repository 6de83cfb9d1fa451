"""Tables, bars and labels in our own colours, around text from other people."""

import contextlib
import sys
from collections.abc import Iterable
from typing import TextIO

import rich.console
import rich.segment
import rich.text

from ems_worker.terminal import streams, text


class Console(rich.console.Console):
    """A rich console that cleans all text it draws; only its own styles and cursor movements reach the terminal.

    `stream` is standard output or standard error. Text is never parsed as markup. Lines are not wrapped if `width` is
    None and the stream is not a terminal.
    """

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        super().__init__(file=streams.trusted(stream), width=width, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[rich.segment.Segment]:
        for segment in super().render(renderable, options):
            content, style, control = segment
            yield segment if control else rich.segment.Segment(text.clean(content), style)

    def on_broken_pipe(self) -> None:
        """Raises the BrokenPipeError again, so that the command handles it like any other."""
        error = sys.exception()
        assert error is not None
        raise error


def show(stream: TextIO, *parts: str | tuple[str, str]) -> None:
    """Prints a line of texts and (text, style) pairs, without wrapping it."""
    with contextlib.suppress(BrokenPipeError):
        Console(stream).print(rich.text.Text.assemble(*parts), soft_wrap=True)


def emit(stream: TextIO, drawn: str) -> None:
    """Writes a line that a Console has drawn and therefore cleaned."""
    streams.trusted(stream).write(drawn + "\n")
