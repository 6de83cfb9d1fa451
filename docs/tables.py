"""The tables of docs/operations.md: settings, metrics, exit codes, streams, made from the code."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from ems_worker import settings
from ems_worker.adapters.jetstream import consumers, streams
from ems_worker.cli import exits
from ems_worker.service.metrics import Metrics

_DAY_SECONDS = 24 * 3600
_NS = 1_000_000_000


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; `|` in cells is escaped."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def all_settings() -> str:
    """A line a setting."""
    rows = []
    for one in settings.describe():
        default = f"`{one.default}`" if one.default and " " not in one.default else one.default or "empty"
        bounds = f" ({one.constraint})" if one.constraint else ""
        unit = f", {one.unit}" if one.unit else ""
        rows.append((f"`{one.name}`", f"`{one.env}`", f"{default}{unit}", f"{one.description}{bounds}"))
    return table(("setting", "variable", "default", "meaning"), rows)


def metrics() -> str:
    """A line an instrument; the names are as /metrics shows them."""
    rows = []
    for family in Metrics().registry.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        rows.append((f"`{name}`", family.type, _labels(family.name), family.documentation))
    return table(("metric", "kind", "label", "meaning"), rows)


def _labels(name: str) -> str:
    """The labels of an instrument, which its family doesn't tell until one is used."""
    found: Iterable[str] = next(
        (one._labelnames for one in vars(Metrics()).values() if getattr(one, "_name", None) == name), ()
    )
    return ", ".join(f"`{label}`" for label in found)


def exit_codes() -> str:
    """A line an exit code."""
    return table(("code", "meaning"), ((f"`{code.value}`", exits.MEANING[code]) for code in exits.Exit))


def all_streams() -> str:
    """What each stream has to be, and what a new one gets."""
    rows = []
    for spec in streams.SPECS:
        subjects = "<br>".join(f"`{one}`" for one in spec.subjects)
        others = dict(spec.others)
        age = others.pop("max_age", None)
        first = [f"`max_age` {age // _NS // _DAY_SECONDS} days"] if age else []
        given = [*first, *(f"`{key}` {str(value).lower()}" for key, value in others.items())]
        rows.append((f"`{spec.name}`", subjects, f"file, limits, discard {spec.discard}", ", ".join(given)))
    return table(("stream", "subjects", "must be", "a new one gets"), rows)


def all_consumers() -> str:
    """What each consumer has to be."""
    rows = []
    for stream, spec in ((streams.PLANS, consumers.PLANS_SPEC), (streams.EVENTS, consumers.EVENTS_SPEC)):
        least = f"`ack_wait` {consumers.ACK_WAIT_SECONDS} s, `max_ack_pending` {spec.max_ack_pending:,}"
        filters = "the subjects of run events" if spec.filters else "none"
        rows.append((f"`{spec.name}`", f"`{stream}`", filters, least))
    return table(("consumer", "stream", "filter", "at least"), rows)


SECTIONS: Mapping[str, Callable[[], str]] = {
    "settings": all_settings,
    "metrics": metrics,
    "exit codes": exit_codes,
    "streams": all_streams,
    "consumers": all_consumers,
}
