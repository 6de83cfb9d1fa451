"""Renders the configuration of a run from the base configuration and a point: complete block YAML, and its digest.

For each set of overridden paths, the text that no run changes is rendered once; a run only fills its gaps. Readers of
YAML 1.1 and 1.2 load the result alike.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final, cast

from ems_worker.core import canonical
from ems_worker.core.language import elements, paths
from ems_worker.core.points import scalars
from ems_worker.core.points.plan import Plan

JSON = canonical.JSON

# The number of texts in memory: each entry of `runs` may override its own set of paths.
MAX_TEXTS: Final = 64
# The maximum length of a simple key in YAML, escapes included.
_MAX_SIMPLE_KEY: Final = 1000


@dataclass(frozen=True, slots=True)
class _Gap:
    """The gap for a run's value number `index`; the key or dash before it is at column `indent`."""

    index: int
    indent: int = 0


@dataclass(frozen=True, slots=True)
class _Text:
    """A configuration as text with gaps: each piece precedes its gap, and the last piece follows all gaps.

    `yaml_bytes` is the size of all pieces.
    """

    yaml: tuple[tuple[str, _Gap], ...]
    yaml_last: str
    canonical: tuple[tuple[str, _Gap], ...]
    canonical_last: str
    yaml_bytes: int


class Template:
    """Renders the configurations of one plan's runs. Not safe for use by several threads."""

    def __init__(self, plan: Plan, earlier: Mapping[str, str] | None = None) -> None:
        """`earlier` has the dotted paths of parameters by name that points of earlier versions of the plan have.

        The path of a variable is empty.
        """
        self._base = plan.base
        self._paths = {name: _resolved(plan.base, dotted) for name, dotted in (earlier or {}).items()}
        self._paths |= {parameter.name: parameter.path for parameter in plan.parameters}
        self._variables = {name for name, path in self._paths.items() if not path}
        self._replaced = {parameter.name for parameter in plan.parameters if parameter.replace}
        self._inject = plan.inject
        self._texts: dict[tuple[str | paths.Path, ...], _Text] = {}

    @property
    def texts(self) -> int:
        """The number of texts with gaps in memory."""
        return len(self._texts)

    def render(self, params: Mapping[str, JSON], seed: int, simulation_id: str) -> bytes:
        """The complete configuration of one run, in the order of the base. `params` are those of a point, by name."""
        text, values = self._text(params)
        values += (seed, simulation_id)
        out: list[str] = []
        for piece, gap in text.yaml:
            out += (piece, _filled(values[gap.index], gap.indent))
        return ("".join(out) + text.yaml_last).encode()

    def size(
        self, params: Mapping[str, JSON], seed: int, simulation_id: str, measure: Callable[[JSON, int], int]
    ) -> int:
        """The size of what `render` returns, in bytes. `measure` is `size` or a cache of it."""
        text, values = self._text(params)
        values += (seed, simulation_id)
        return text.yaml_bytes + sum(measure(values[gap.index], gap.indent) for _, gap in text.yaml)

    def config_sha(self, params: Mapping[str, JSON], seed: int) -> str:
        """The identity of the work: SHA-256 of the canonical JSON of `{config, seed}` without the injected paths."""
        text, values = self._text(params)
        out: list[str] = []
        for piece, gap in text.canonical:
            out += (piece, _canonical(values[gap.index]))
        identity = f'{{"config":{"".join(out)}{text.canonical_last},"seed":{seed}}}'
        return hashlib.sha256(identity.encode()).hexdigest()

    def config(self, params: Mapping[str, JSON], seed: int, simulation_id: str) -> dict[str, JSON]:
        """The configuration as data: a copy that the caller may modify."""
        config: object = paths.copied(self._base)
        for path, value in zip(*self._overrides(self._configured(params)), strict=True):
            for each in elements.each(self._base, path):
                config = paths.put(config, each, paths.copied(value))
        for target, injected in ((self._inject.seed, seed), (self._inject.simulation_id, simulation_id)):
            if target is not None:
                config = paths.put(config, target, injected)
        return cast("dict[str, JSON]", config)

    def _text(self, params: Mapping[str, JSON]) -> tuple[_Text, list[JSON]]:
        """The text for these parameters, and the values of its gaps without the injected ones."""
        params = self._configured(params)
        if dict in map(type, params.values()):
            targets, values = self._overrides(params)
            key: tuple[str | paths.Path, ...] = targets
        else:
            key, values = tuple(params), list(params.values())
        text = self._texts.get(key)
        if text is None:
            if len(self._texts) >= MAX_TEXTS:
                self._texts.clear()
            text = self._texts[key] = self._make(self._overrides(params)[0])
        return text, values

    def _configured(self, params: Mapping[str, JSON]) -> Mapping[str, JSON]:
        """The parameters that are part of the configuration."""
        if not self._variables:
            return params
        return {name: value for name, value in params.items() if name not in self._variables}

    def _overrides(self, params: Mapping[str, JSON]) -> tuple[tuple[paths.Path, ...], list[JSON]]:
        """The leaf paths that these parameters set, and their values: a mapping merges into a mapping of the base."""
        pairs: list[tuple[paths.Path, JSON]] = []
        for name, value in params.items():
            path = self._paths[name]
            existing = paths.get(self._base, path) if isinstance(value, dict) else None
            if isinstance(value, dict) and isinstance(existing, dict) and name not in self._replaced:
                pairs.extend(((*path, *inner), leaf) for inner, leaf in paths.leaves(existing, value))
            else:
                pairs.append((path, value))
        return tuple(path for path, _ in pairs), [value for _, value in pairs]

    def _make(self, targets: tuple[paths.Path, ...]) -> _Text:
        config: object = paths.copied(self._base)
        for index, path in enumerate(targets):
            for each in elements.each(self._base, path):
                config = paths.put(config, each, _Gap(index))
        identity = paths.copied(config)
        for offset, target in enumerate((self._inject.seed, self._inject.simulation_id)):
            if target is not None:
                paths.drop(identity, target)
                config = paths.put(config, target, _Gap(len(targets) + offset))
        yaml = _entries(config, 0) if config else ["{}\n"]
        pieces, last = _split(yaml)
        yaml_bytes = len(last.encode()) + sum(len(piece.encode()) for piece, _ in pieces)
        return _Text(pieces, last, *_split(_canonical_parts(identity)), yaml_bytes)


def _resolved(base: dict[str, JSON], dotted: str) -> paths.Path:
    if not dotted:
        return ()
    parts = paths.split(dotted)
    return paths.resolve(base, parts, allow_new=True) or parts


def block(mapping: Mapping[str, object]) -> str:
    """A mapping of plain data as block YAML at column 0, which readers of YAML 1.1 and 1.2 load alike."""
    return "".join(cast("Iterator[str]", _entries(mapping, 0))) if mapping else "{}\n"


def size(value: JSON, indent: int) -> int:
    """The size in bytes of a value after its key at column `indent`."""
    return len(_filled(value, indent).encode())


def _split(parts: Iterable[str | _Gap]) -> tuple[tuple[tuple[str, _Gap], ...], str]:
    """Each gap with the text before it, and the text after the last gap."""
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
    """The text of a gap, from the space before the value to the end of the line."""
    if isinstance(value, list) and set(map(type, value)) == {float}:  # fast, for genomes and time series
        texts: Iterable[str] = map(repr, value)
        mark = f"\n{' ' * indent}  - "
        text = mark.join(texts)
        if "e" in text:
            text = mark.join(map(scalars.write, value))  # type: ignore[arg-type]  # all are floats
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
    """The lines of a mapping at column `indent`; if `begun`, the first line has its indentation already."""
    assert isinstance(mapping, dict)
    for key, value in mapping.items():
        text = scalars.quoted(key)
        pad = "" if begun else " " * indent
        begun = False
        if len(text) > _MAX_SIMPLE_KEY:
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
    return scalars.write(value)  # type: ignore[arg-type]  # the reader returns plain data only


def _canonical(value: object) -> str:
    if type(value) is float:
        return repr(value)
    return canonical.text(value)


def _canonical_parts(value: object) -> Iterator[str | _Gap]:
    """The value in canonical JSON, with gaps."""
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
