"""Axes in the words of other tools, such as `{distribution: uniform, min: 0, max: 1}`, written as a plan has them."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from ems_worker.core.language import foreign, quotes

# Several values in another notation: `range(1, 10)`, `1 to 10 by 2`, `1:10`, `1..10`.
_FORMULA: Final = re.compile(r"\w\(|\d(?: to |:|\.\.)")
_KINDS: Final = ("distribution", "type")
# What is one less than the number of values.
_STEPS: Final = ("partitions", "num_steps")
# Our names of keys.
_RANGE: Final = {**foreign.RANGE, **dict.fromkeys(_STEPS, "num")}
_DISTRIBUTION: Final = {word: name for word, name in foreign.DISTRIBUTION.items() if " " not in name}
_OURS: Final = frozenset({"values", "value", "range", "logrange", "concat", "file", "dist", "expr"})
# Distributions of other tools that are no distribution here.
_PLAIN: Final = {"constant": "value", "const": "value", "categorical": "values", "choice": "values"}


def rewritten(spec: Mapping[str, object], common: Sequence[str], forms: Mapping[str, Sequence[str]]) -> str | None:
    """The axis as a plan has it; None if it isn't clear.

    `common` are the keys that every axis may have, `forms` the parameters of each distribution.
    """
    kind = next((key for key in _KINDS if key in spec), None)
    if kind is None and not _OURS.isdisjoint(spec):
        return None
    word = None if kind is None else spec[kind]
    given = {key: value for key, value in spec.items() if key != kind and key not in common}
    for key in _STEPS:
        if type(steps := given.get(key)) is int:
            given = {**given, key: steps + 1}
    if (spaced := _renamed(given, _RANGE)).keys() in ({"start", "stop", "num"}, {"start", "stop", "step"}):
        return f"{{range: {_shown(spaced)}}}" if all(map(_is_number, spaced.values())) else None
    if not isinstance(word, str):
        return None
    name = foreign.DISTRIBUTIONS.get(word, word)
    if given.get("log") is True and name == "uniform":
        name = "loguniform"
        del given["log"]
    parameters = _renamed(given, _DISTRIBUTION)
    if word in _PLAIN and [*parameters] == [_PLAIN[word]]:
        return _shown(parameters)
    return _shown({"dist": name, **parameters}) if parameters.keys() == {*forms.get(name, ("",))} else None


def _renamed(given: Mapping[str, object], names: foreign.Remedies) -> dict[str, object]:
    """The values by our names, or none of them if two have the same."""
    found = {names.get(key, key): value for key, value in given.items()}
    return found if len(found) == len(given) else {}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(mapping: Mapping[str, object]) -> str:
    return f"{{{', '.join(f'{key}: {_brief(value)}' for key, value in mapping.items())}}}"


def _brief(value: object) -> str:
    return value if isinstance(value, str) and value.isidentifier() and len(value) < 20 else quotes.brief(value)


def hint(spec: object) -> str:
    """What a text may mean that is in the place of an axis, as the end of a message."""
    if not isinstance(spec, str):
        return ""
    if spec.startswith("${"):
        return ", and for the value of another parameter {expr: ...}"
    if "," in spec and "(" not in spec:
        return ", and for several values a list: [..., ...]"
    if _FORMULA.search(spec):
        return ", for several values a list, and for a range {range: {start: ..., stop: ..., step: ...}}"
    return ""
