"""Dotted paths into a base configuration: finding them, suggesting them, and taking nested overrides apart."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from ems_worker.core import canonical
from ems_worker.core.language import problems

JSON = canonical.JSON
Path = tuple[str | int, ...]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Unknown:
    """A dotted path that the configuration does not have; `step` counts the parts up to the first wrong one.

    `misspelt`: the suggestion is as near as slips of the pen are.
    """

    step: int
    message: str
    suggestion: str | None
    misspelt: bool


def split(text: str) -> tuple[str, ...]:
    """The parts of a dotted path."""
    return tuple(text.split("."))


def resolve(base: JSON, parts: tuple[str, ...], *, allow_new: bool = False) -> Path | None:
    """The path that these parts lead to, list elements by number; None if there is none.

    A key that has dots itself is found too. With `allow_new` a missing key of a mapping is a new path, and what is
    not a mapping or list gives way to one; an element that a list doesn't have stays missing.
    """
    if not parts:
        return ()
    if isinstance(base, list):
        if not _is_index(parts[0]) or int(parts[0]) >= len(base):
            return None
        rest = resolve(base[int(parts[0])], parts[1:], allow_new=allow_new)
        return None if rest is None else (int(parts[0]), *rest)
    if isinstance(base, dict):
        for taken in range(1, len(parts) + 1):
            key = ".".join(parts[:taken])
            rest = resolve(base[key], parts[taken:], allow_new=allow_new) if key in base else None
            if rest is not None:
                return (key, *rest)
        return parts if allow_new and parts[0] not in base else None
    return parts if allow_new else None


def at(base: JSON, path: Path) -> JSON:
    """The value at an existing path. Raises LookupError where there is none."""
    for step in path:
        if isinstance(base, dict) or (isinstance(base, list) and isinstance(step, int)):
            base = base[step]  # type: ignore[index]  # LookupError is what is promised
        else:
            raise LookupError(path)
    return base


def has(base: JSON, path: Path) -> bool:
    """True if there is a value, null or not, at this path."""
    try:
        at(base, path)
    except LookupError:
        return False
    return True


def get(base: JSON, path: Path) -> JSON:
    """The value at a path, None where there is none."""
    try:
        return at(base, path)
    except LookupError:
        return None


def unknown(base: JSON, parts: tuple[str, ...], budget: problems.Budget) -> Unknown:
    """Says where a path that does not resolve goes wrong, and which path was most likely meant."""
    node, step = base, 0
    while True:  # it does not resolve, so it goes wrong somewhere
        if isinstance(node, dict) and parts[step] in node:
            node = node[parts[step]]
        elif isinstance(node, list) and _is_index(parts[step]) and int(parts[step]) < len(node):
            node = node[int(parts[step])]
        else:
            break
        step += 1
    so_far = ".".join(parts[:step])
    where = f"{so_far!r}" if step else "the base configuration"
    if isinstance(node, list):
        message = f"{where} is a list of {len(node)} elements, numbered from 0; it has no {parts[step]!r}"
    elif isinstance(node, dict):
        message = f"{where} has no {parts[step]!r}{problems.lookalikes(parts[step])}"
    else:
        message = f"{where} is {problems.kind(node)}, it has nothing inside"
    repaired = _repair(base, parts, budget)
    suggestion = _anywhere(base, parts, budget) if repaired is None else ".".join(repaired)
    return Unknown(step + 1, message, suggestion, repaired is not None)


def _is_index(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def nearest(base: JSON, parts: tuple[str, ...], budget: problems.Budget) -> str | None:
    """The existing path that looks most like this one."""
    repaired = _repair(base, parts, budget)
    return _anywhere(base, parts, budget) if repaired is None else ".".join(repaired)


def _anywhere(base: JSON, parts: tuple[str, ...], budget: problems.Budget) -> str | None:
    """The path most like this one of all, those first that end like it; None in a configuration of too many."""
    candidates: list[str] = []
    last: list[str] = []
    wanted = ".".join(parts)
    for path in islice(walk(base), problems.MOST_CANDIDATES + 1):
        text = ".".join(map(str, path))
        candidates.append(text)
        if str(path[-1]) == parts[-1] and not wanted.startswith(f"{text}."):
            last.append(text)
    if len(candidates) > problems.MOST_CANDIDATES:
        return None
    # But not the way to what is wanted.
    candidates = [text for text in candidates if not wanted.startswith(f"{text}.")]
    return budget.nearest(wanted, last, 0.0) or budget.nearest(wanted, candidates)


def _repair(node: JSON, parts: tuple[str, ...], budget: problems.Budget) -> tuple[str, ...] | None:
    """The path with each part that is missing replaced by the sibling most like it."""
    if not parts:
        return ()
    if isinstance(node, list):
        there = _is_index(parts[0]) and int(parts[0]) < len(node)
        part = parts[0] if there else budget.nearest(parts[0], map(str, range(len(node))))
        inner = None if part is None else node[int(part)]
    elif isinstance(node, dict):
        part = parts[0] if parts[0] in node else budget.nearest(parts[0], node)
        inner = None if part is None else node[part]
    else:
        return None
    rest = None if part is None else _repair(inner, parts[1:], budget)
    return None if part is None or rest is None else (part, *rest)


def walk(base: JSON, path: Path = ()) -> Iterator[Path]:
    """All paths of a configuration, mappings and lists themselves as well as what is in them, in its order."""
    inside: Iterator[tuple[str | int, JSON]]
    if isinstance(base, dict):
        inside = iter(base.items())
    elif isinstance(base, list):
        inside = iter(enumerate(base))
    else:
        return
    for step, value in inside:
        yield (*path, step)
        yield from walk(value, (*path, step))


def leaves(base: dict[str, JSON], value: Mapping[str, JSON], path: Path = ()) -> Iterator[tuple[Path, JSON]]:
    """A mapping as override, taken apart where the configuration has mappings too: they merge, all else replaces.

    `base` is the configuration's own value at `path`.
    """
    for key, inner in value.items():
        there = base.get(key)
        if isinstance(inner, dict) and isinstance(there, dict):
            yield from leaves(there, inner, (*path, key))
        else:
            yield (*path, key), inner


def put(config: object, path: Path, value: object) -> object:
    """Sets a value, in place where it can be; returns the configuration, which is a new mapping if it wasn't one."""
    if not path:
        return value
    step, rest = path[0], path[1:]
    if isinstance(config, list) and isinstance(step, int):
        config[step] = put(config[step], rest, value)
        return config
    mapping: dict[str, object] = config if isinstance(config, dict) else {}
    mapping[str(step)] = put(mapping.get(str(step)), rest, value)
    return mapping


def drop(config: object, path: Path) -> None:
    """Takes a value out, in place; an element of a list becomes null, for the others keep their numbers."""
    *above, last = path
    for step in above:
        if isinstance(config, list) and isinstance(step, int):
            config = config[step]
        else:
            config = config.get(step) if isinstance(config, dict) else None
    if isinstance(config, list) and isinstance(last, int):
        config[last] = None
    elif isinstance(config, dict):
        config.pop(last, None)


def fresh(value: T) -> T:
    """A copy that shares nothing with the value, nor one part of it with another."""
    if isinstance(value, dict):
        return {key: fresh(inner) for key, inner in value.items()}  # type: ignore[return-value]  # of the same shape
    if isinstance(value, list):
        return [fresh(inner) for inner in value]  # type: ignore[return-value]  # of the same shape
    return value


def overlapping(first: Path, second: Path) -> bool:
    """True if one path is the other or leads into it, so that setting both would set a value twice."""
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]
