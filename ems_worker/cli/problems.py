"""What is wrong with a plan, the way compilers say it: file, line, column, and the line itself with a mark."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import typer

from ems_worker import errors
from ems_worker.cli import plans, shell

_WIDTH = 110
_TOKEN = re.compile(r"[\w.$/-]+|\S")


def tell(
    found: Iterable[errors.Problem], file: plans.PlanFile, *, kind: str = "error", show_lines: bool = True
) -> None:
    """Prints problems to stderr. Without `show_lines` their positions are of another text and left out."""
    lines = file.data.decode("utf-8-sig", errors="replace").splitlines() if show_lines else []
    color = {"error": "red", "warning": "yellow"}[kind] if _colored() else None
    for one in sorted(found, key=lambda one: (one.line or 0, one.column or 0)):
        for text in _one(one, file.name, lines, kind, color):
            shell.say(text)


def from_documents(documents: Iterable[Mapping[str, Any]]) -> list[errors.Problem]:
    """The `errors` or `warnings` of a decision."""
    return [
        errors.Problem(
            one["code"], one["path"], one["message"], one.get("line"), one.get("column"), one.get("suggestion")
        )
        for one in documents
    ]


def _one(one: errors.Problem, name: str, lines: list[str], kind: str, color: str | None) -> Iterator[str]:
    placed = one.line is not None and one.column is not None and one.line <= len(lines)
    place = f"{name}:{one.line}:{one.column}" if placed else name
    path = f"{one.path}: " if one.path else ""
    label = typer.style(f"{kind}:", fg=color, bold=True) if color else f"{kind}:"
    # Most messages end with it: did you mean ...?
    hint = f"; {one.suggestion}" if one.suggestion and one.suggestion not in one.message else ""
    yield f"{place}: {label} {path}{one.message}{hint} [{one.code}]"
    if placed:
        assert one.line is not None
        assert one.column is not None
        line, column = _window(lines[one.line - 1].replace("\t", " "), one.column - 1)
        token = _TOKEN.match(line, column)
        mark = "^" * (token.end() - column if token else 1)
        yield f"{one.line:>5} | {line}"
        yield f"      | {' ' * column}{typer.style(mark, fg=color, bold=True) if color else mark}"


def _window(line: str, column: int) -> tuple[str, int]:
    """A part of a long line around the column (JSON is often one line), and the column in it."""
    if len(line) <= _WIDTH:
        return line, column
    start = max(0, min(column - _WIDTH // 2, len(line) - _WIDTH))
    before = "..." if start else ""
    after = "..." if start + _WIDTH < len(line) else ""
    return f"{before}{line[start : start + _WIDTH]}{after}", column - start + len(before)


def _colored() -> bool:
    return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
