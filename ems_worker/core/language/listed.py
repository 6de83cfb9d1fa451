"""`runs`: points that the plan lists one by one, each with what it overrides."""

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import axes, paths, problems, type_warnings

JSON = canonical.JSON

SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SUFFIX_FORM: Final = "1 to 64 of letters, digits and _.-"
LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,63}")
LABEL_FORM: Final = "a label's name: letters, digits and _./-, at most 64"
_LONGEST_LABEL: Final = 256


@dataclass(frozen=True, slots=True)
class Run:
    """One entry of `runs`; `overrides` are by dotted leaf path."""

    run_id_suffix: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, JSON] = field(default_factory=dict)


class Reader:
    """Reads `runs` against a base configuration. `parameters` are the leaf paths that any entry overrides, by name."""

    def __init__(
        self, base: dict[str, JSON], allow_new: bool, found: problems.Problems, odd: problems.Problems
    ) -> None:
        self._base = base
        self._allow_new = allow_new
        self._found = found
        self._odd = odd
        # Parameters whose values are not of the base configuration's kind: each is told once.
        self._other_kind: set[str] = set()
        self.parameters: dict[str, paths.Path] = {}
        self.places: dict[str, problems.Place] = {}
        self.runs: list[Run] = []

    def read(self, data: object, place: problems.Place) -> None:
        """Adds all entries to `runs`."""
        found = self._found
        entries = found.sequence(data, place)
        if entries is not None and not entries:
            found.add("empty", place, "no runs: leave the key out, or list at least one")
        suffixes: dict[str, int] = {}
        for index, entry in enumerate(entries or ()):
            here = (*place, index)
            spec = found.mapping(entry, here)
            if spec is None:
                continue
            found.keys(spec, here, ("run_id_suffix", "labels", "params_override"))
            run = self._entry(spec, here)
            if run.run_id_suffix is not None and suffixes.setdefault(run.run_id_suffix, index) != index:
                message = f"{run.run_id_suffix!r} is the suffix of entry {suffixes[run.run_id_suffix]} too"
                found.add("duplicate", (*here, "run_id_suffix"), message)
            self.runs.append(run)

    def _entry(self, spec: Mapping[str, object], place: problems.Place) -> Run:
        found = self._found
        suffix = None
        if "run_id_suffix" in spec:
            suffix = found.text(spec["run_id_suffix"], (*place, "run_id_suffix"), SUFFIX, SUFFIX_FORM)
        labels = read_labels(spec["labels"], (*place, "labels"), found) if "labels" in spec else {}
        overrides: dict[str, JSON] = {}
        given = spec.get("params_override", {})
        nested = found.mapping(given, (*place, "params_override"))
        if nested:
            self._overrides(nested, (*place, "params_override"), (), overrides)
            self._check_apart(overrides, (*place, "params_override"))
        return Run(suffix, labels, overrides)

    def _overrides(
        self, spec: Mapping[str, object], place: problems.Place, above: tuple[str, ...], into: dict[str, JSON]
    ) -> None:
        """Takes a nested override apart into leaves: mappings merge, lists and all else replace."""
        for key, value in spec.items():
            parts = (*above, *paths.split(key))
            here = (*place, key)
            if isinstance(value, dict) and value and not self._replaces_null(parts):
                self._overrides(value, here, parts, into)
                continue
            name = ".".join(parts)
            if name not in self.parameters:
                path = axes.find(self._base, parts, self._allow_new, self._found, here)
                if path is None:
                    continue
                self.parameters[name] = path
                self.places[name] = here
            if name in into:
                self._found.add("overlapping_paths", here, f"{name!r} is overridden twice in this entry", on_key=True)
            into[name] = cast("JSON", value)
            if name not in self._other_kind:
                there = paths.get(self._base, self.parameters[name])
                if type_warnings.judge(there, [into[name]], type_warnings.at(here), self._odd):
                    self._other_kind.add(name)

    def _replaces_null(self, parts: tuple[str, ...]) -> bool:
        """Whether a mapping is a value here: it is where the base configuration has a null and no path may be new."""
        path = None if self._allow_new else paths.resolve(self._base, parts)
        return path is not None and paths.get(self._base, path) is None

    def _check_apart(self, overrides: dict[str, JSON], place: problems.Place) -> None:
        by_path = sorted((tuple(map(str, self.parameters[name])), name) for name in overrides)
        for (path, name), (next_path, next_name) in itertools.pairwise(by_path):
            if paths.overlapping(path, next_path):
                message = f"{name!r} and {next_name!r} set the same value in this entry"
                self._found.add("overlapping_paths", place, message, on_key=True)


def read_labels(data: object, place: problems.Place, found: problems.Problems) -> dict[str, str]:
    """Labels of runs: short texts by name."""
    labels: dict[str, str] = {}
    for key, value in (found.mapping(data, place) or {}).items():
        here = (*place, key)
        if not LABEL.fullmatch(key):
            found.add("bad_format", here, f"{problems.brief(key)} is not {LABEL_FORM}", on_key=True)
        text = found.text(value, here)
        if text is not None and len(text) > _LONGEST_LABEL:
            found.add("out_of_range", here, f"a label's text has at most {_LONGEST_LABEL} letters")
        elif text is not None:
            labels[key] = text
    return labels
