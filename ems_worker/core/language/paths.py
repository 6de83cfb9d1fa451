"""Dotted paths of a configuration: resolving them, suggesting similar ones, reading and writing the values there.

A step `*` in a list stands for each of its elements. Such a path exists if it does in all of them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final, TypeVar

from ems_worker.core import canonical
from ems_worker.core.language import quotes, suggestions
from ems_worker.core.language.suggestions import SearchBudget

JSON = canonical.JSON
Path = tuple[str | int, ...]
T = TypeVar("T")

EACH: Final = "*"  # the step that stands for every element of a list
# What other tools have between the keys of a path, or around an index.
_OTHER_SEPARATORS: Final = re.compile(r"[/\[\]:]+")


@dataclass(frozen=True, slots=True)
class Unknown:
    """Why a dotted path doesn't exist, and the most similar path that does.

    The path is `misspelt` if each part of it that doesn't exist is similar to one that does.
    """

    message: str
    suggestion: str | None
    misspelt: bool


def split(text: str) -> tuple[str, ...]:
    """The parts of a dotted path; a dot after a backslash is part of a key."""
    if "\\." not in text:
        return tuple(text.split("."))
    return tuple(part.replace("\0", ".") for part in text.replace("\\.", "\0").split("."))


def written(base: JSON, path: Path) -> str:
    """The path as a plan writes it; dots in keys have a backslash if it could be another path without them."""
    dotted = quotes.dotted(path)
    if not any(isinstance(step, str) and "." in step for step in path) or len(resolutions(base, split(dotted))) < 2:
        return dotted
    return ".".join(str(step).replace(".", "\\.") for step in path)


def forms(base: JSON, path: Path) -> str:
    """The path in the form in which a plan can only mean this one: with backslashes, or else nested."""
    text = written(base, path)
    if len(resolutions(base, split(text))) < 2:
        return text
    *above, last = map(str, path)
    return "".join(f"{step}: {{" for step in above) + f"{last}: ..." + "}" * len(above)


def resolutions(base: JSON, parts: tuple[str, ...]) -> list[Path]:
    """The first two paths that exist and that these parts name: keys may contain dots, so that there may be two."""
    return list(islice(_resolutions(base, parts), 2))


def _resolutions(base: JSON, parts: tuple[str, ...]) -> Iterator[Path]:
    if not parts:
        yield ()
    elif isinstance(base, list):
        if is_index(parts[0]) and int(parts[0]) < len(base):
            yield from ((int(parts[0]), *rest) for rest in _resolutions(base[int(parts[0])], parts[1:]))
        elif parts[0] == EACH and base:
            of_first = _resolutions(base[0], parts[1:])
            yield from ((EACH, *rest) for rest in of_first if all(has(element, rest) for element in base))
    elif isinstance(base, dict):
        for taken in range(1, len(parts) + 1):
            key = ".".join(parts[:taken])
            if key in base:
                yield from ((key, *rest) for rest in _resolutions(base[key], parts[taken:]))


def resolve(base: JSON, parts: tuple[str, ...], *, allow_new: bool = False) -> Path | None:
    """The path that these parts name, with numbers for list elements; None if it doesn't exist.

    A key may contain dots itself. With `allow_new` a missing key of a mapping is a new path, and a mapping may replace
    a scalar; lists don't get new elements, and no new key is `*`.
    """
    if not parts:
        return ()
    if isinstance(base, list):
        if parts[0] == EACH:
            return _resolve_each(base, parts[1:], allow_new=allow_new)
        if not is_index(parts[0]) or int(parts[0]) >= len(base):
            return None
        rest = resolve(base[int(parts[0])], parts[1:], allow_new=allow_new)
        return None if rest is None else (int(parts[0]), *rest)
    if isinstance(base, dict):
        for taken in range(1, len(parts) + 1):
            key = ".".join(parts[:taken])
            rest = resolve(base[key], parts[taken:], allow_new=allow_new) if key in base else None
            if rest is not None:
                return (key, *rest)
        allow_new = allow_new and parts[0] not in base
    return parts if allow_new and EACH not in parts else None


def _resolve_each(elements: list[JSON], parts: tuple[str, ...], *, allow_new: bool) -> Path | None:
    """The path that these parts name in all elements of a list, which are not none."""
    found = {resolve(element, parts, allow_new=allow_new) for element in elements}
    rest = found.pop() if len(found) == 1 else None
    return None if rest is None else (EACH, *rest)


def at(base: JSON, path: Path) -> JSON:
    """The value at a path, of elements that of the first. Raises LookupError if the path doesn't exist."""
    for number, step in enumerate(path):
        if isinstance(base, dict) or (isinstance(base, list) and isinstance(step, int)):
            base = base[step]  # type: ignore[index]  # raises the documented LookupError
        elif isinstance(base, list) and step == EACH and base:
            values = [at(element, path[number + 1 :]) for element in base]
            return values[0]
        else:
            raise LookupError(path)
    return base


def has(base: JSON, path: Path) -> bool:
    """True if the path exists; its value may be null."""
    try:
        at(base, path)
    except LookupError:
        return False
    return True


def get(base: JSON, path: Path) -> JSON:
    """The value at a path; None if the path doesn't exist."""
    try:
        return at(base, path)
    except LookupError:
        return None


def unknown(base: JSON, parts: tuple[str, ...], budget: SearchBudget) -> Unknown:
    """Explains why a path doesn't exist: which part is the first that doesn't, and which path is most similar."""
    given, node, step = parts, base, 0
    while True:  # the path does not resolve, so this ends
        if isinstance(node, dict) and parts[step] in node:
            node = node[parts[step]]
        elif isinstance(node, list) and is_index(parts[step]) and int(parts[step]) < len(node):
            node = node[int(parts[step])]
        elif isinstance(node, list) and parts[step] == EACH and node:
            number = next((index for index, one in enumerate(node) if resolve(one, parts[step + 1 :]) is None), None)
            if number is None:
                message = "the elements of this list have it in different ways, because keys have dots"
                return Unknown(f"{message}: name each by its index", None, misspelt=True)
            parts, node = (*parts[:step], str(number), *parts[step + 1 :]), node[number]
        else:
            break
        step += 1
    plain = tuple(filter(None, _OTHER_SEPARATORS.sub(".", ".".join(parts)).split(".")))
    so_far = ".".join(parts[:step])
    where = quotes.name(so_far) if step else "the base configuration"
    if isinstance(node, list):
        elements = f"{len(node)} elements, numbered from 0"
        message = f"{where} is a list of {elements}; it has no {quotes.name(parts[step])}"
    elif isinstance(node, dict):
        hint = "; '*' stands for the elements of a list" if parts[step] == EACH else quotes.non_ascii(parts[step])
        message = f"{where} has no {quotes.name(parts[step])}{hint}"
    else:
        message = f"{where} is {quotes.describe(node)}, which has no keys"
    if plain != parts and resolve(base, plain) is not None:
        return Unknown(message, ".".join(plain), misspelt=True)
    if (repaired := _repair(base, given, budget)) == given:  # it exists in the first element of a list
        return Unknown(message, None, misspelt=False)
    suggestion = _anywhere(base, parts, budget) if repaired is None else ".".join(repaired)
    return Unknown(message, suggestion, repaired is not None)


def is_index(part: str) -> bool:
    return part.isascii() and part.isdecimal()


def similar(base: JSON, parts: tuple[str, ...], budget: SearchBudget) -> str | None:
    """The path that exists with each part that doesn't replaced by a similar one, if there is one."""
    repaired = _repair(base, parts, budget)
    return None if repaired is None else ".".join(repaired)


def nearest(base: JSON, parts: tuple[str, ...], budget: SearchBudget) -> str | None:
    """The most similar path that exists."""
    repaired = _repair(base, parts, budget)
    return _anywhere(base, parts, budget) if repaired is None else ".".join(repaired)


def _anywhere(base: JSON, parts: tuple[str, ...], budget: SearchBudget) -> str | None:
    """The most similar of all paths, preferably with the same last key; None if the configuration has too many."""
    candidates: list[str] = []
    same_key: list[str] = []
    wanted = ".".join(parts)
    for path in islice(walk(base), suggestions.MAX_CANDIDATES + 1):
        text = ".".join(map(str, path))
        candidates.append(text)
        if str(path[-1]) == parts[-1] and not wanted.startswith(f"{text}."):
            same_key.append(text)
    if len(candidates) > suggestions.MAX_CANDIDATES:
        return None
    # A path above the wanted one is no suggestion for it.
    candidates = [text for text in candidates if not wanted.startswith(f"{text}.")]
    return budget.nearest(wanted, same_key, 0.0) or budget.nearest(wanted, candidates)


def _repair(node: JSON, parts: tuple[str, ...], budget: SearchBudget) -> tuple[str, ...] | None:
    """The path with each missing part replaced by its most similar sibling; None if a part has no similar sibling."""
    if not parts:
        return ()
    if isinstance(node, list):
        if parts[0] == EACH and node:
            below = _repair(node[0], parts[1:], budget)
            return None if below is None else (EACH, *below)
        exists = is_index(parts[0]) and int(parts[0]) < len(node)
        part = parts[0] if exists else budget.nearest(parts[0], map(str, range(len(node))))
        inner = None if part is None else node[int(part)]
    elif isinstance(node, dict):
        part = parts[0] if parts[0] in node else budget.nearest(parts[0], node)
        inner = None if part is None else node[part]
    else:
        return None
    rest = None if part is None else _repair(inner, parts[1:], budget)
    return None if part is None or rest is None else (part, *rest)


def walk(base: JSON, path: Path = ()) -> Iterator[Path]:
    """All paths of a configuration in its order, those of mappings and lists included."""
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
    """The leaf paths that a mapping overrides, and their values.

    A mapping merges into a mapping of the configuration; any other value replaces the present one. `base` is the
    configuration's own value at `path`.
    """
    for key, inner in value.items():
        existing = base.get(key)
        if isinstance(inner, dict) and isinstance(existing, dict):
            yield from leaves(existing, inner, (*path, key))
        else:
            yield (*path, key), inner


def put(config: object, path: Path, value: object) -> object:
    """Sets a value in place. Returns the configuration: a new mapping if it was neither a mapping nor a list."""
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
    """Removes a value in place. A list element becomes null instead, so that the others keep their indexes."""
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


def copied(value: T) -> T:
    """A deep copy; parts that the value shares are copied separately."""
    if isinstance(value, dict):
        return {key: copied(inner) for key, inner in value.items()}  # type: ignore[return-value]  # the same type
    if isinstance(value, list):
        return [copied(inner) for inner in value]  # type: ignore[return-value]  # the same type
    return value


def overlapping(first: Path, second: Path) -> bool:
    """True if the paths are equal or one leads into the other: setting both would set a value twice."""
    shorter = min(len(first), len(second))
    return first[:shorter] == second[:shorter]
