"""Paths that stand for the same value of every element of a list, such as `species.*.speed`."""

from collections.abc import Iterable

from ems_worker.core import canonical
from ems_worker.core.language import paths


def each(base: canonical.JSON, path: paths.Path) -> list[paths.Path]:
    """The paths that a path stands for: one for each element, or the path itself. What follows may be new."""
    if paths.EACH not in path:
        return [path]
    found: list[tuple[paths.Path, object]] = [((), base)]
    for step in path:
        found = [((*above, one), inner) for above, node in found for one, inner in _steps(node, step)]
    return [path for path, _ in found]


def _steps(node: object, step: str | int) -> Iterable[tuple[str | int, object]]:
    if isinstance(node, list):
        return enumerate(node) if step == paths.EACH else [(step, node[int(step)])]
    return [(step, node.get(step) if isinstance(node, dict) else None)]


def covers(starred: paths.Path, path: paths.Path) -> bool:
    """Whether a path is one of those that another one stands for."""
    return len(starred) == len(path) and all(
        one == other or (one == paths.EACH and isinstance(other, int)) for one, other in zip(starred, path, strict=True)
    )


def alike(base: canonical.JSON, path: paths.Path) -> bool:
    """Whether the path exists, and all elements that it stands for have an equal value there."""
    if not paths.has(base, path):
        return False
    first, *others = each(base, path)
    if not others:
        return True
    text = canonical.text(paths.get(base, first))
    return all(canonical.text(paths.get(base, other)) == text for other in others)
