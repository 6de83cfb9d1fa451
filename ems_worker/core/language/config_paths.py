"""Resolves the paths that a plan names against its base configuration, and reports those that don't exist."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from ems_worker.core import canonical
from ems_worker.core.language import paths
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

    def find(self, parts: tuple[str, ...], location: Location) -> paths.Path | None:
        """The path that these parts name; otherwise reports a problem with the most similar path and returns None."""
        problems = self.problems
        if len(parts) > MAX_STEPS or sum(map(len, parts)) > MAX_LENGTH:
            message = f"a path has at most {MAX_STEPS} parts and {MAX_LENGTH} characters"
            problems.add("bad_path", location, message, on_key=True)
            return None
        if not all(parts):
            problems.add("bad_path", location, "a part of this dotted path is empty", on_key=True)
            return None
        path = paths.resolve(self.base, parts, allow_new=self.allow_new)
        if path is None and problems.full:
            problems.add("unknown_path", location, "")
        elif path is None:
            unknown = paths.unknown(self.base, parts, problems.budget)
            may_be_new = not unknown.misspelt and paths.resolve(self.base, parts, allow_new=True) is not None
            hint = " (allow_new_paths: true permits new paths)" if may_be_new else ""
            problems.add("unknown_path", location, unknown.message + hint, unknown.suggestion, on_key=True)
        return path

    def check_mapping(self, path: paths.Path, value: Mapping[str, JSON], location: Location) -> None:
        """Checks that every path that a mapping sets exists, if it merges into a mapping of the configuration."""
        existing = paths.get(self.base, path)
        if not isinstance(existing, dict):
            return
        for leaf, _ in paths.leaves(existing, value):
            steps = tuple(map(str, leaf))
            if paths.resolve(existing, steps, allow_new=self.allow_new) is None:
                self.find((*map(str, path), *steps), (*location, *leaf))
