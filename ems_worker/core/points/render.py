"""One run's configuration from the base configuration and a point: complete block YAML, and its identity.

A template is made once for each set of overridden paths: everything that no run changes is text already, and a run only
fills the gaps. What is written means the same to readers of YAML 1.1 and 1.2.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import paths
from ems_worker.core.points import plan as plans
from ems_worker.core.points import scalars

JSON = canonical.JSON

# How many sets of overridden paths are kept as templates: entries of `runs` may each have their own.
_KEPT: Final = 64
# A key longer than this is no longer a simple key to YAML, once it is escaped.
_LONGEST_SIMPLE_KEY: Final = 1000


@dataclass(frozen=True, slots=True)
class _Gap:
    """Stands for a value that a run fills in, number `index` of the run's; its key or dash is at column `indent`."""

    index: int
    indent: int = 0


@dataclass(frozen=True, slots=True)
class _Form:
    """A configuration as text with gaps: each piece goes before its gap, `last` after them all.

    `yaml_bytes`: of all pieces together.
    """

    yaml: tuple[tuple[str, _Gap], ...]
    yaml_last: str
    canonical: tuple[tuple[str, _Gap], ...]
    canonical_last: str
    yaml_bytes: int


class Template:
    """Renders the configurations of one plan's runs. Not to be shared between threads."""

    def __init__(self, plan: plans.Plan) -> None:
        self._base = plan.base
        self._paths = {parameter.name: parameter.path for parameter in plan.parameters}
        self._inject = plan.inject
        self._forms: dict[tuple[str | paths.Path, ...], _Form] = {}

    def render(self, params: Mapping[str, JSON], seed: int, simulation_id: str) -> bytes:
        """The complete configuration of one run, in the base's order. `params` are by name, as points have them."""
        form, values = self._form(params)
        values += (seed, simulation_id)
        out: list[str] = []
        for piece, gap in form.yaml:
            out += (piece, _filled(values[gap.index], gap.indent))
        return ("".join(out) + form.yaml_last).encode()

    def size(
        self, params: Mapping[str, JSON], seed: int, simulation_id: str, measure: Callable[[JSON, int], int]
    ) -> int:
        """The bytes that `render` would give. `measure` is `size`, or remembers what that said of long values."""
        form, values = self._form(params)
        values += (seed, simulation_id)
        return form.yaml_bytes + sum(measure(values[gap.index], gap.indent) for _, gap in form.yaml)

    def config_sha(self, params: Mapping[str, JSON], seed: int) -> str:
        """The identity of the work: SHA-256 of the canonical JSON of `{config, seed}`, without the injected paths."""
        form, values = self._form(params)
        out: list[str] = []
        for piece, gap in form.canonical:
            out += (piece, _canonical(values[gap.index]))
        text = f'{{"config":{"".join(out)}{form.canonical_last},"seed":{seed}}}'
        return hashlib.sha256(text.encode()).hexdigest()

    def config(self, params: Mapping[str, JSON], seed: int, simulation_id: str) -> dict[str, JSON]:
        """The configuration as data, the caller's own copy."""
        config: object = paths.fresh(self._base)
        for path, value in zip(*self._overrides(params), strict=True):
            config = paths.put(config, path, paths.fresh(value))
        for target, injected in ((self._inject.seed, seed), (self._inject.simulation_id, simulation_id)):
            if target is not None:
                config = paths.put(config, target, injected)
        return cast("dict[str, JSON]", config)

    def _form(self, params: Mapping[str, JSON]) -> tuple[_Form, list[JSON]]:
        """The form for these parameters, and the values of its gaps but for the two that are injected."""
        if dict in map(type, params.values()):
            targets, values = self._overrides(params)
            key: tuple[str | paths.Path, ...] = targets
        else:
            key, values = tuple(params), list(params.values())
        form = self._forms.get(key)
        if form is None:
            if len(self._forms) >= _KEPT:
                self._forms.clear()
            form = self._forms[key] = self._make(self._overrides(params)[0])
        return form, values

    def _overrides(self, params: Mapping[str, JSON]) -> tuple[tuple[paths.Path, ...], list[JSON]]:
        """The leaf paths that these parameters set and their values: mappings merge into the base's."""
        pairs: list[tuple[paths.Path, JSON]] = []
        for name, value in params.items():
            path = self._paths[name]
            there = paths.get(self._base, path) if isinstance(value, dict) else None
            if isinstance(value, dict) and isinstance(there, dict):
                pairs.extend(((*path, *inner), leaf) for inner, leaf in paths.leaves(there, value))
            else:
                pairs.append((path, value))
        return tuple(path for path, _ in pairs), [value for _, value in pairs]

    def _make(self, targets: tuple[paths.Path, ...]) -> _Form:
        config: object = paths.fresh(self._base)
        for index, path in enumerate(targets):
            config = paths.put(config, path, _Gap(index))
        identity = paths.fresh(config)
        for offset, target in enumerate((self._inject.seed, self._inject.simulation_id)):
            if target is not None:
                paths.drop(identity, target)
                config = paths.put(config, target, _Gap(len(targets) + offset))
        yaml = _entries(config, 0) if config else ["{}\n"]
        pieces, last = _gathered(yaml)
        fixed = len(last.encode()) + sum(len(piece.encode()) for piece, _ in pieces)
        return _Form(pieces, last, *_gathered(_canonical_parts(identity)), fixed)


def block(mapping: Mapping[str, object]) -> str:
    """A mapping of plain data as block YAML, from column 0; means the same to readers of YAML 1.1 and 1.2."""
    return "".join(cast("Iterator[str]", _entries(mapping, 0))) if mapping else "{}\n"


def size(value: JSON, indent: int) -> int:
    """The bytes that a value takes after its key at column `indent`."""
    return len(_filled(value, indent).encode())


def _gathered(parts: Iterable[str | _Gap]) -> tuple[tuple[tuple[str, _Gap], ...], str]:
    """The text before each gap with the gap, and the text after the last."""
    pieces: list[tuple[str, _Gap]] = []
    text: list[str] = []
    for part in parts:
        if isinstance(part, _Gap):
            pieces.append(("".join(text), part))
            text.clear()
        else:
            text.append(part)
    return tuple(pieces), "".join(text)


def _filled(value: JSON, indent: int) -> str:
    """What goes into a gap, from the space before the value to its line's end."""
    if isinstance(value, list) and set(map(type, value)) == {float}:  # long vectors: genomes, time series
        texts: Iterable[str] = map(repr, value)
        mark = f"\n{' ' * indent}  - "
        text = mark.join(texts)
        if "e" in text:
            text = mark.join(map(scalars.write, value))  # type: ignore[arg-type]  # floats, as just seen
        return f"{mark}{text}\n"
    return "".join(cast("Iterator[str]", _value(value, indent)))


def _value(value: object, indent: int) -> Iterator[str | _Gap]:
    """A value after its key, which is at column `indent`."""
    if isinstance(value, _Gap):
        yield _Gap(value.index, indent)
    elif isinstance(value, dict | list) and value:
        yield "\n"
        yield from (_entries if isinstance(value, dict) else _items)(value, indent + 2)
    else:
        yield f" {_empty_or_scalar(value)}\n"


def _entries(mapping: object, indent: int, *, begun: bool = False) -> Iterator[str | _Gap]:
    """The lines of a mapping at column `indent`; the first line's indent is there already if it is `begun`."""
    assert isinstance(mapping, dict)
    for key, value in mapping.items():
        text = scalars.quoted(key)
        pad = "" if begun else " " * indent
        begun = False
        if len(text) > _LONGEST_SIMPLE_KEY:
            yield f"{pad}? {text}\n{' ' * indent}:"
        else:
            yield f"{pad}{text}:"
        yield from _value(value, indent)


def _items(items: object, indent: int, *, begun: bool = False) -> Iterator[str | _Gap]:
    """The lines of a list at column `indent`."""
    assert isinstance(items, list)
    for item in items:
        pad = "" if begun else " " * indent
        begun = False
        if isinstance(item, dict | list) and item:
            yield f"{pad}- "
            yield from (_entries if isinstance(item, dict) else _items)(item, indent + 2, begun=True)
        else:
            yield f"{pad}-"
            yield from _value(item, indent)


def _empty_or_scalar(value: object) -> str:
    if isinstance(value, dict):
        return "{}"
    if isinstance(value, list):
        return "[]"
    return scalars.write(value)  # type: ignore[arg-type]  # the reader gives plain data only


def _canonical(value: object) -> str:
    if type(value) is float:
        return repr(value)
    return canonical.text(value)


def _canonical_parts(value: object) -> Iterator[str | _Gap]:
    """The value in canonical JSON, gaps left open."""
    if isinstance(value, _Gap):
        yield value
    elif isinstance(value, dict):
        before = "{"
        for key in sorted(value):
            yield f"{before}{canonical.text(key)}:"
            yield from _canonical_parts(value[key])
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, list):
        before = "["
        for item in value:
            yield before
            yield from _canonical_parts(item)
            before = ","
        yield "]" if value else "[]"
    else:
        yield canonical.text(value)
