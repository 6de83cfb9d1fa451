"""Resolves the paths that a plan names against its base configuration, and reports those that don't exist."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import paths, quotes
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

# No configuration is nested this deep, so longer paths can't exist; resolving them would only take time.
MAX_STEPS: Final = 64
MAX_LENGTH: Final = 1000


@dataclass(frozen=True, slots=True)
class ConfigPaths:
    """The paths of a base configuration; with `allow_new` also paths that it doesn't have yet."""

    base: dict[str, JSON]
    allow_new: bool
    problems: Problems

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
        node = paths.get(self.base, within)
        found = [(*within, *path) for path in paths.resolutions(node, parts)]
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
            return self._new((*within, *new), location, known_new=known_new)
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

    def check_mapping(self, path: paths.Path, value: Mapping[str, JSON], location: Location) -> None:
        """Checks that every path that a mapping sets exists, if it merges into a mapping of the configuration."""
        existing = paths.get(self.base, path)
        if not isinstance(existing, dict):
            return
        for leaf, _ in paths.leaves(existing, value):
            if not paths.has(existing, leaf):
                self.find(tuple(map(str, leaf)), (*location, *leaf), path)
