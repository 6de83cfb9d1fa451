"""The labels and units of parameters and metrics, which tables and pictures show; programs go by the names."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Final, Protocol

from ems_worker.core.records import Headings

Heading = Mapping[str, str]
# How many of each kind are recorded: replies that have them must fit into a message.
MAX_RECORDED: Final = 500


class Described(Protocol):
    """A parameter or metric of a plan."""

    @property
    def name(self) -> str: ...
    @property
    def label(self) -> str | None: ...
    @property
    def unit(self) -> str | None: ...


def of(parameters: Iterable[Described], metrics: Iterable[Described]) -> Headings:
    """The labels and units of a plan's parameters and metrics, as they are recorded: of the first that have one."""
    kinds = {"parameters": by_name(parameters), "metrics": by_name(metrics)}
    return {kind: dict(islice(texts.items(), MAX_RECORDED)) for kind, texts in kinds.items()}


def by_name(described: Iterable[Described]) -> Mapping[str, Heading]:
    """The labels and units of those that have one."""
    texts = ((each.name, {"label": each.label, "unit": each.unit}) for each in described if each.label or each.unit)
    return {name: {key: text for key, text in both.items() if text} for name, both in texts}


def extended(before: Headings, after: Headings) -> Headings:
    """Those of an experiment whose plan was extended: earlier points keep their parameters."""
    return {kind: {**before.get(kind, {}), **after.get(kind, {})} for kind in ("parameters", "metrics")}


def titles(names: Sequence[str], headings: Mapping[str, Heading], short: Sequence[str] | None = None) -> list[str]:
    """What to show for names: the label if it is the only one like it, else the name, which `short` may have shorter;
    with the unit, as in `water temperature [K]`."""
    found = [headings.get(name, {}) for name in names]
    labels = [heading.get("label") for heading in found]
    numbers = collections.Counter(labels)
    shown = (
        label if label and numbers[label] == 1 else name for label, name in zip(labels, short or names, strict=True)
    )
    units = (heading.get("unit") for heading in found)
    return [f"{text} [{unit}]" if unit else text for text, unit in zip(shown, units, strict=True)]
