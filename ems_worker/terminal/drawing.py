"""Tables, bars and labels in our own colours, with words of others in them."""

import contextlib
import sys
from collections.abc import Iterable
from typing import TextIO

import rich.console
import rich.segment
import rich.text

from ems_worker.terminal import streams, text


class Console(rich.console.Console):
    """One that cleans all text it draws; styles and the moves of a bar are its own.

    `stream` is standard output or standard error. Nothing in the words is markup, and lines aren't broken where
    `width` is None and the stream is no terminal.
    """

    def __init__(self, stream: TextIO, width: int | None = None) -> None:
        super().__init__(file=streams.trusted(stream), width=width, markup=False, emoji=False, highlight=False)

    def render(
        self, renderable: rich.console.RenderableType, options: rich.console.ConsoleOptions | None = None
    ) -> Iterable[rich.segment.Segment]:
        for segment in super().render(renderable, options):
            words, style, control = segment
            yield segment if control else rich.segment.Segment(text.clean(words), style)

    def on_broken_pipe(self) -> None:
        """Raises it again: how a command ends whose reader is gone is decided in one place, and not here."""
        gone = sys.exception()
        assert gone is not None
        raise gone


def show(stream: TextIO, *parts: str | tuple[str, str]) -> None:
    """A line for people of words and of (word, style), as long as it is."""
    with contextlib.suppress(BrokenPipeError):
        Console(stream).print(rich.text.Text.assemble(*parts), soft_wrap=True)


def emit(stream: TextIO, drawn: str) -> None:
    """Writes a line that a Console has drawn: its words are clean, its styles ours."""
    streams.trusted(stream).write(drawn + "\n")
