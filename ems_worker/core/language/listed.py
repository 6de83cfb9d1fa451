"""`runs`: points that the plan lists, each with the values that it overrides."""

import itertools
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import axis_kinds, decimals, foreign, paths, quotes, replacing, resources, type_warnings
from ems_worker.core.language.config_paths import ConfigPaths
from ems_worker.core.language.problems import Problems
from ems_worker.core.language.quotes import Location

JSON = canonical.JSON

SUFFIX: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
SUFFIX_FORM: Final = "1 to 64 letters, digits and _.-"
LABEL: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./-]{0,63}")
LABEL_FORM: Final = "a label's name: letters, digits and _./-, at most 64"
MAX_LABEL: Final = 256
_KEYS: Final = ("run_id_suffix", "labels", "params_override")


@dataclass(frozen=True, slots=True)
class ListedPoint:
    """One entry of `runs`; `overrides` has its values by dotted leaf path."""

    run_id_suffix: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    overrides: dict[str, JSON] = field(default_factory=dict)
    _operands: dict[str, decimals.Operand] = field(default_factory=dict, init=False, repr=False, compare=False)

    def operand(self, name: str) -> decimals.Operand:
        """An override as expressions calculate with it, converted once."""
        if name not in self._operands:
            self._operands[name] = decimals.exact(self.overrides[name])
        return self._operands[name]


class ListedPointParser:
    """Parses `runs` into `points`.

    `parameters` has the leaf paths that any entry overrides, by dotted name; `locations` the first location of each.
    `replaced` are those with a value that replaces a mapping in place of merging into it.
    """

    def __init__(self, config: ConfigPaths, variables: Collection[str] = ()) -> None:
        self._config = config
        self._variables = variables
        self._problems = config.problems
        # Parameters with a warning about the type of their value: there is one warning per parameter.
        self._warned: set[str] = set()
        self.parameters: dict[str, paths.Path] = {}
        self.locations: dict[str, Location] = {}
        self.replaced: set[str] = set()
        self._paths: dict[tuple[paths.Path, str], paths.Path] = {}
        self._names: dict[paths.Path, str] = {}
        # The sets of parameters of entries with a `*` that have been compared.
        self._apart: set[frozenset[str]] = set()
        self.points: list[ListedPoint] = []

    def parse(self, data: object, location: Location) -> None:
        """Adds all entries to `points`."""
        problems = self._problems
        if isinstance(data, Mapping) and isinstance(name := data.get(axis_kinds.FILE), str):
            axis_kinds.refuse_file(name, (*location, axis_kinds.FILE), problems)
            return
        entries = problems.sequence(data, location, "write [{params_override: {...}}, ...]")
        if entries is not None and not entries:
            problems.add("empty", location, "the list is empty: remove the key, or list at least one run")
        suffixes: dict[str, int] = {}
        for index, entry in enumerate(entries or ()):
            here = (*location, index)
            spec = problems.mapping(entry, here, "write {params_override: {path: value}}")
            if spec is None:
                continue
            problems.keys(spec, here, _KEYS, self._remedies(spec))
            point = self._entry(spec, here)
            suffix = point.run_id_suffix
            if suffix is not None and suffixes.setdefault(suffix, index) != index:
                message = f"entry {suffixes[suffix]} has the suffix {quotes.name(suffix)} too"
                problems.add("duplicate", (*here, "run_id_suffix"), message)
            self.points.append(point)

    def _remedies(self, spec: Mapping[str, object]) -> foreign.Remedies:
        """What to write for the unknown keys of an entry: paths belong in `params_override`."""
        into = {
            key: f"the values of a run are in params_override: {{{key}: ...}}"
            for key in spec
            if key not in foreign.RUN
            and paths.resolve(self._config.base, paths.split(key.replace(paths.EACH, "0"))) is not None
        }
        return {**foreign.RUN, **into}

    def _entry(self, spec: Mapping[str, object], location: Location) -> ListedPoint:
        problems = self._problems
        suffix = None
        if "run_id_suffix" in spec:
            suffix = problems.text(spec["run_id_suffix"], (*location, "run_id_suffix"), SUFFIX, SUFFIX_FORM)
        labels = parse_labels(spec["labels"], (*location, "labels"), problems) if "labels" in spec else {}
        overrides: dict[str, JSON] = {}
        nested = problems.mapping(spec.get("params_override", {}), (*location, "params_override"))
        if nested:
            self._overrides(nested, (*location, "params_override"), (), overrides)
            self._check_overlaps(overrides, (*location, "params_override"))
        return ListedPoint(suffix, labels, overrides)

    def _overrides(
        self, spec: Mapping[str, object], location: Location, above: paths.Path, into: dict[str, JSON]
    ) -> None:
        """Flattens nested overrides to their leaves: mappings merge, all other values replace."""
        for key, given in spec.items():
            here, value = (*location, key), given
            path = self._path(key, here, above)
            if path is None:
                continue
            existing = paths.get(self._config.base, path)
            replaces = isinstance(value, dict) and replacing.is_override(value, existing)
            if isinstance(value, dict) and replaces:
                value, here = value["value"], (*here, "value")
            elif isinstance(value, dict) and value and not self._replaces_null(path, value, here):
                self._overrides(value, here, path, into)
                continue
            name = self._names[path]
            self.parameters.setdefault(name, path)
            self.locations.setdefault(name, here)
            if name in into:
                message = f"{quotes.name(name)} is overridden twice in this entry"
                self._problems.add("overlapping_paths", here, message, on_key=True)
            into[name] = cast("JSON", value)
            examples = self._config.examples(path)
            if replaces:
                self.replaced.add(name)
            elif not all(replacing.check_override(each, into[name], here, self._problems) for each in examples):
                continue
            locate = type_warnings.at(here)
            if name not in self._warned and any(
                type_warnings.judge(each, [into[name]], locate, self._problems) for each in examples
            ):
                self._warned.add(name)

    def _path(self, key: str, location: Location, above: paths.Path) -> paths.Path | None:
        """The path of a key below another path; entries mostly have the same keys, so that the results are kept."""
        path = self._paths.get((above, key))
        if path is None and not above and key in self._variables:
            message = f"{quotes.name(key)} is a variable, and runs set paths of the configuration"
            self._problems.add("unknown_path", location, f"{message}: vary it in 'variables'", on_key=True)
        elif path is None:
            path = self._config.find(paths.split(key), location, above)
            if path is not None:
                self._paths[above, key] = path
                self._names[path] = paths.written(self._config.base, path)
        return path

    def _replaces_null(self, path: paths.Path, value: Mapping[str, object], location: Location) -> bool:
        """Whether a mapping is a value itself: the base configuration has null here, and new paths are not allowed."""
        base = self._config.base
        if (
            self._config.allow_new
            or not paths.has(base, path)
            or {*map(type, self._config.examples(path))} != {NoneType}
        ):
            return False
        number = next((key for key in value if paths.is_index(key)), None)
        if number is not None:
            remedy = f"with keys that are numbers write {{value: {{{quotes.brief(number)}: ...}}, replace: true}}"
            self._problems.add("bad_path", location, f"the base configuration has null here, and no list: {remedy}")
        return True

    def _check_overlaps(self, overrides: dict[str, JSON], location: Location) -> None:
        starred = sum(paths.EACH in self.parameters[name] for name in overrides)
        together = frozenset(overrides) if starred else frozenset()
        if starred and (together in self._apart or not self._config.may_visit(location, starred)):
            return
        self._apart.add(together)
        expanded = [(one, name) for name in overrides for one in self._config.each(self.parameters[name])]
        by_path = sorted((tuple(map(str, path)), name) for path, name in expanded)
        for (path, name), (next_path, next_name) in itertools.pairwise(by_path):
            if paths.overlapping(path, next_path):
                message = f"{quotes.name(name)} and {quotes.name(next_name)} set the same value in this entry"
                self._problems.add("overlapping_paths", location, message, on_key=True)
                return


def parse_labels(data: object, location: Location, problems: Problems) -> dict[str, str]:
    """The labels of runs: short texts by name."""
    labels: dict[str, str] = {}
    for key, value in (problems.mapping(data, location) or {}).items():
        here = (*location, key)
        if not LABEL.fullmatch(key):
            problems.add("bad_format", here, f"{quotes.brief(key)} is not {LABEL_FORM}", on_key=True)
        elif key.startswith(resources.PREFIX):
            message = f"labels that begin with {resources.PREFIX!r} come from 'resources' and 'simulator'"
            problems.add("reserved_name", here, f"{message}; choose another name", on_key=True)
        text = problems.text(value, here)
        if text is not None and len(text) > MAX_LABEL:
            problems.add("out_of_range", here, f"a label's text has at most {MAX_LABEL} characters")
        elif text is not None:
            labels[key] = text
    return labels
