"""Prints the problems of a plan like compiler errors: file, line, column, and the line itself with a mark."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ems_worker import errors
from ems_worker.cli import plans
from ems_worker.terminal import drawing

_MAX_WIDTH = 110
_COLORS = {"error": "red", "warning": "yellow"}
# A text, or a text with a style.
Part = str | tuple[str, str]
_TOKEN = re.compile(r"[\w.$/-]+|\S")


def show(
    problems: Iterable[errors.Problem], file: plans.PlanFile, *, kind: str = "error", show_lines: bool = True
) -> None:
    """Prints problems to stderr.

    `show_lines` is False if their positions are not those of the file's text; then no positions are shown.
    """
    lines = file.data.decode("utf-8-sig", errors="replace").splitlines() if show_lines else []
    style = f"bold {_COLORS[kind]}"
    order = sorted(problems, key=lambda problem: (problem.file is None, problem.line or 0, problem.column or 0))
    for problem in order:
        for parts in _lines_of(problem, file.name, lines, kind=kind, style=style):
            drawing.show(sys.stderr, *parts)


def from_documents(documents: Iterable[Mapping[str, Any]]) -> list[errors.Problem]:
    """The `errors` or `warnings` of a decision."""
    return [
        errors.Problem(
            document["code"],
            document["path"],
            document["message"],
            document.get("line"),
            document.get("column"),
            document.get("suggestion"),
            file=document.get("file"),
        )
        for document in documents
    ]


def _lines_of(
    problem: errors.Problem, name: str, lines: Sequence[str], *, kind: str, style: str
) -> Iterator[Sequence[Part]]:
    """The lines to print for a problem."""
    has_position = problem.line is not None and problem.column is not None and problem.line <= len(lines)
    position = f"{name}:{problem.line}:{problem.column}" if has_position else name
    if problem.file is not None:  # its text isn't at hand
        has_position = False
        position = f"{problem.file}:{problem.line}:{problem.column}"
    path = f"{problem.path}: " if problem.path else ""
    # Most messages end with the suggestion already: did you mean ...?
    in_message = not problem.suggestion or problem.suggestion in problem.message
    hint = "" if in_message else f"; {problem.suggestion}"
    yield f"{position}: ", (f"{kind}:", style), f" {path}{problem.message}{hint} [{problem.code}]"
    if has_position:
        assert problem.line is not None
        assert problem.column is not None
        line, column = _window(lines[problem.line - 1].replace("\t", " "), problem.column - 1)
        token = _TOKEN.match(line, column)
        mark = "^" * (token.end() - column if token else 1)
        yield (f"{problem.line:>5} | {line}",)
        yield f"      | {' ' * column}", (mark, style)


def _window(line: str, column: int) -> tuple[str, int]:
    """Cuts a long line (JSON often is a single line) around the column; the part and the column in it."""
    if len(line) <= _MAX_WIDTH:
        return line, column
    start = max(0, min(column - _MAX_WIDTH // 2, len(line) - _MAX_WIDTH))
    before = "..." if start else ""
    after = "..." if start + _MAX_WIDTH < len(line) else ""
    return f"{before}{line[start : start + _MAX_WIDTH]}{after}", column - start + len(before)
