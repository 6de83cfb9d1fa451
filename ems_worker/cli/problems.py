"""What is wrong with a plan, the way compilers say it: file, line, column, and the line itself with a mark."""

import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ems_worker import errors
from ems_worker.cli import plans
from ems_worker.terminal import drawing

_WIDTH = 110
_COLORS = {"error": "red", "warning": "yellow"}
# Words, or words with a style.
Part = str | tuple[str, str]
_TOKEN = re.compile(r"[\w.$/-]+|\S")


def tell(
    found: Iterable[errors.Problem], file: plans.PlanFile, *, kind: str = "error", show_lines: bool = True
) -> None:
    """Prints problems to stderr. Without `show_lines` their positions are of another text and left out."""
    lines = file.data.decode("utf-8-sig", errors="replace").splitlines() if show_lines else []
    style = f"bold {_COLORS[kind]}"
    for one in sorted(found, key=lambda one: (one.line or 0, one.column or 0)):
        for parts in _one(one, file.name, lines, kind, style):
            drawing.show(sys.stderr, *parts)


def from_documents(documents: Iterable[Mapping[str, Any]]) -> list[errors.Problem]:
    """The `errors` or `warnings` of a decision."""
    return [
        errors.Problem(
            one["code"], one["path"], one["message"], one.get("line"), one.get("column"), one.get("suggestion")
        )
        for one in documents
    ]


def _one(one: errors.Problem, name: str, lines: list[str], kind: str, style: str) -> Iterator[Sequence[Part]]:
    """The lines of one problem, each as words of which some have a style."""
    placed = one.line is not None and one.column is not None and one.line <= len(lines)
    place = f"{name}:{one.line}:{one.column}" if placed else name
    path = f"{one.path}: " if one.path else ""
    # Most messages end with it: did you mean ...?
    hint = f"; {one.suggestion}" if one.suggestion and one.suggestion not in one.message else ""
    yield f"{place}: ", (f"{kind}:", style), f" {path}{one.message}{hint} [{one.code}]"
    if placed:
        assert one.line is not None
        assert one.column is not None
        line, column = _window(lines[one.line - 1].replace("\t", " "), one.column - 1)
        token = _TOKEN.match(line, column)
        mark = "^" * (token.end() - column if token else 1)
        yield (f"{one.line:>5} | {line}",)
        yield f"      | {' ' * column}", (mark, style)


def _window(line: str, column: int) -> tuple[str, int]:
    """A part of a long line around the column (JSON is often one line), and the column in it."""
    if len(line) <= _WIDTH:
        return line, column
    start = max(0, min(column - _WIDTH // 2, len(line) - _WIDTH))
    before = "..." if start else ""
    after = "..." if start + _WIDTH < len(line) else ""
    return f"{before}{line[start : start + _WIDTH]}{after}", column - start + len(before)
