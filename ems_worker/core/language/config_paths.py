"""Resolves the paths that a plan names against its base configuration, and reports those that don't exist."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import elements, paths, quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

# No configuration is nested this deep, so longer paths can't exist; resolving them would only take time.
MAX_STEPS: Final = 64
MAX_LENGTH: Final = 1000
# The values that are visited for the paths of a plan that have a `*`: each time, all of the base configuration.
MAX_VISITED: Final = 1_000_000


class _Starred:
    """What is known of paths with a `*`, and the work that they may still take."""

    __slots__ = ("_left", "examples", "size")

    def __init__(self) -> None:
        self._left = MAX_VISITED
        self.size = 0
        self.examples: dict[paths.Path, list[JSON]] = {}

    def visit(self, base: JSON, times: int) -> bool:
        """Whether all of the configuration may be visited so many times more, which costs as much each time."""
        self.size = self.size or sum(1 for _ in paths.walk(base))
        may, self._left = self._left > 0, self._left - self.size * times
        return may


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """The paths of a base configuration; with `allow_new` also paths that it doesn't have yet."""

    base: dict[str, JSON]
    allow_new: bool
    problems: Problems
    _starred: _Starred = field(default_factory=_Starred, repr=False, compare=False)

    def find(
        self, parts: tuple[str, ...], location: Location, within: paths.Path = (), *, known_new: bool = False
    ) -> paths.Path | None:
        """The path that these parts name inside the value at `within`.

        Otherwise reports a problem with the most similar path and returns None. A new path that resembles one of the
        configuration causes a warning, unless it is `known_new`.
        """
        problems = self.problems
        whole = (*map(str, within), *parts)
        if len(whole) > MAX_STEPS or sum(map(len, whole)) > MAX_LENGTH:
            message = f"a path has at most {MAX_STEPS} parts and {MAX_LENGTH} characters"
            problems.add("bad_path", location, message, on_key=True)
            return None
        if not all(parts):
            problems.add("bad_path", location, "a part of this dotted path is empty", on_key=True)
            return None
        if paths.EACH in whole and not self.may_visit(location):
            return None
        node, step = paths.get(self.base, within), 0
        if paths.EACH in within:
            node, parts, step = [paths.get(self.base, one) for one in self.each(within)], (paths.EACH, *parts), 1
        found = [(*within, *path[step:]) for path in paths.resolutions(node, parts)]
        if len(found) > 1:
            one, other = (paths.forms(self.base, path) for path in found)
            message = f"{quotes.name('.'.join(whole))} is two values of the base configuration, because keys have dots"
            problems.add("ambiguous_path", location, f"{message}: write either {one} or {other}", on_key=True)
            return None
        if found:
            return found[0]
        new = paths.resolve(node, parts, allow_new=True) if self.allow_new else None
        if problems.full:
            problems.add("unknown_path", location, "")
        elif new is None:
            unknown = paths.unknown(self.base, whole, problems.budget)
            may_be_new = not unknown.misspelt and paths.resolve(node, parts, allow_new=True) is not None
            hint = " (allow_new_paths: true permits new paths)" if may_be_new else ""
            problems.add("unknown_path", location, unknown.message + hint, unknown.suggestion, on_key=True)
        else:
            return self._new((*within, *new[step:]), location, known_new=known_new)
        return None

    def _new(self, path: paths.Path, location: Location, *, known_new: bool) -> paths.Path | None:
        """A path that the configuration doesn't have, unless it would make a mapping where a list was meant."""
        problems = self.problems
        for length, step in enumerate(path):
            above = path[:length]
            if isinstance(step, str) and paths.is_index(step) and not isinstance(paths.get(self.base, above), dict):
                message = f"{quotes.name(quotes.dotted(above))} is no list, and a path doesn't make one"
                problems.add("bad_path", location, f"{message}: write the list as the value of that path", on_key=True)
                return None
        near = None if known_new else paths.similar(self.base, tuple(map(str, path)), problems.budget)
        if near is not None:
            message = f"the base configuration has no {quotes.name(quotes.dotted(path))}, so that this is a new path"
            problems.warn("new_path", location, f"{message}; did you mean {quotes.cut(near, 200)}?", on_key=True)
        return path

    def may_visit(self, location: Location, times: int = 1) -> bool:
        """Whether the plan may look for elements once more, or several times. Otherwise that is reported."""
        if self._starred.visit(self.base, times):
            return True
        message = f"the paths with '*' are too many for a base configuration of {self._starred.size:,} values"
        self.problems.add("out_of_range", location, f"{message}: name fewer of them", on_key=True)
        return False

    def each(self, path: paths.Path) -> Sequence[paths.Path]:
        """The paths that a path stands for, which is itself unless it has a `*`."""
        return elements.each(self.base, path)

    def examples(self, path: paths.Path) -> Sequence[JSON]:
        """The values at a path: one of each type that the elements have which it stands for."""
        if paths.EACH not in path:
            return [paths.get(self.base, path)]
        if path not in self._starred.examples:
            values = [paths.get(self.base, one) for one in self.each(path)]
            self._starred.examples[path] = [*{type(value): value for value in values}.values()]
        return self._starred.examples[path]

    def check_mapping(self, path: paths.Path, value: Mapping[str, JSON], location: Location) -> None:
        """Checks that every path that a mapping sets exists, if it merges into a mapping of the configuration."""
        existing = paths.get(self.base, path)
        if not isinstance(existing, dict):
            return
        for leaf, _ in paths.leaves(existing, value):
            if not paths.has(existing, leaf):
                self.find(tuple(map(str, leaf)), (*location, *leaf), path)
